"""A toy host with Quobyte, for those who look after one."""

from __future__ import annotations

import builtins
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moorline.api import Moorline
from moorline.backends.mounter import Mounter
from moorline.backends.quobyte import Quobyte
from moorline.care.environment import Environment
from moorline.care.eventlog import EventLog
from moorline.care.shared_files import SharedFiles
from moorline.core.backoff import Pending
from moorline.core.locks import Locks
from moorline.core.reconciler import Reconciler
from moorline.core.records import Records
from moorline.errors import MoorlineError
from moorline.host.caching_host import Snapshot
from moorline.host.mount.fuse_abort import FuseConnections
from moorline.model import Attachment, Guest, GuestId, GuestName, Level, VolumeId
from moorline.ports import Command, Entry, Host, Mount, Root
from moorline.ports.inspection import Finding, GuestDisk
from moorline.secret import Secret
from moorline.stores.codec import Codec
from moorline.testing.faults import Faults
from moorline.testing.toy_host import ToyHost, ToyShare
from moorline.testing.toys import MemoryStore, ToyGuest, ToyHypervisor, ToyWorld

FILES = frozenset({"a", "b"})


def mount_quobyte(host: ToyHost, command: Command) -> None:
    share, at = command.argv[2:4]
    host.mount(f"quobyte@{share}", at, "fuse.quobyte", ToyShare(files=FILES))


def disk(path: str, **more: Any) -> GuestDisk:
    """A virtio disk of a stopped guest, without a mark; *more* overrides what it is."""
    values = {
        "device": "vdc",
        "path": path,
        "format": "raw",
        "bus": "virtio",
        "mark": "",
        "serial": "",
        "readonly": False,
        "shared": False,
        "running": False,
        "defined": True,
    }
    return GuestDisk(**{**values, **more})


class ToyInventory:
    """What the toy's guests show, and what they were marked with."""

    def __init__(self) -> None:
        self.all: dict[str, list[GuestDisk]] = {}
        self.error: MoorlineError | None = None
        """What a look at the disks comes to."""
        self.findings: list[Finding] = []

    def disks(self, guest: GuestId) -> Sequence[GuestDisk]:
        if self.error is not None:
            raise self.error
        return self.all.get(guest, [])

    def mark(self, guest: GuestId, device: str, volume: VolumeId) -> None:
        self.all[guest] = [
            replace(disk, mark=volume) if disk.device == device else disk
            for disk in self.all[guest]
        ]

    def diagnose(self, places: Sequence[Path]) -> Sequence[Finding]:
        return self.findings

    def facts(self) -> Mapping[str, str]:
        return {"toy": "1.0"}


class _Host(ToyHost):
    """Counts the looks at shares."""

    looks = 0

    def root(self, path: Path, *, list: bool = False) -> Root:
        self.looks += 1
        return super().root(path, list=list)


class _Hypervisor(ToyHypervisor):
    """Counts the surveys."""

    surveys = 0

    def find(self, guest: str) -> GuestName:
        found = super().find(guest)
        self.surveys -= 1  # it looks at them all, as no hypervisor has to
        return found

    def survey(self) -> Sequence[Guest]:
        self.surveys += 1
        return super().survey()


class _Store(MemoryStore):
    """Counts the listings, by what is listed."""

    def __init__(self, faults: Faults) -> None:
        super().__init__(faults)
        self.listings: Counter[str] = Counter()

    def list(self, prefix: str) -> tuple[builtins.list[Entry], int]:
        self.listings[prefix.split("/")[2]] += 1
        return super().list(prefix)


Kept = Callable[[GuestId, VolumeId], str]
"""As :attr:`Environment.kept_elsewhere`."""


class Scene:
    def __init__(self, directory: Path, kept: Kept = lambda guest, volume: "") -> None:
        (directory / "mnt").mkdir()
        self.base = directory / "mnt"
        self.host = _Host({"mount.quobyte": mount_quobyte})
        self.faults = Faults()
        self.world = ToyWorld()
        self.world.guests = {GuestId(name): ToyGuest(name) for name in ("g1", "g2")}
        self.inventory = ToyInventory()
        self.connections = directory / "fuse"
        self.options: dict[str, Any] = {}
        """Of the back end, those that a look's own instance has, too."""
        self.pending: list[Pending] = []
        self.backends = backends = self._backends(self.host)
        event_log = EventLog(directory)
        self.store = _Store(self.faults)
        self.records = records = Records(
            self.store, Codec(Secret(b"k" * 32)), "h1", event_log.noted
        )
        self.hypervisor = hypervisor = _Hypervisor(self.world)
        self.locks = Locks(patience=1.0)
        self.reconciler = Reconciler(
            records,
            backends,
            hypervisor,
            self.locks,
            event_log.took,
            looking=lambda: self._backends(Snapshot(self.host)),
        )
        self.moorline = Moorline(
            records,
            self.reconciler,
            hypervisor,
            pending=lambda: self.pending,
            environment=Environment(
                backends,
                self.host.mounts,
                FuseConnections(self.connections),
                self.inventory,
                event_log,
                list,
                SharedFiles(self.host).find,
                self.host.size,
                kept,
            ),
        )

    def _backends(self, host: Host) -> dict[str, Quobyte]:
        return {"quobyte": Mounter(host, Quobyte(), self.base, **self.options)}

    def connection(self, name: str = "a") -> dict[str, Any]:
        data = {"export": "reg/vol", "name": name, "format": "raw", "volume_id": f"vol-{name}"}
        return {"driver_volume_type": "quobyte", "data": data}

    def attach(self, name: str = "a", guest: str = "g1", level: Level = Level.CONNECTED) -> str:
        self.moorline.attachments.attach(guest, self.connection(name), level=level)
        return self.link()

    def rows(self, volume: str) -> list[Attachment]:
        return [row for row in self.records.all() if row.key.volume == volume]

    def link(self) -> str:
        return self.host.table[-1].target

    def found(self) -> list[str]:
        return [finding.check for finding in self.moorline.maintenance.doctor().findings]

    def connection_of(self, mount: Mount) -> Path:
        """The kernel's control of a mount's connection."""
        file = self.connections / mount.device.partition(":")[2] / "abort"
        file.parent.mkdir(parents=True)
        file.touch()
        return file


def prepared(
    directory: Path, monkeypatch: pytest.MonkeyPatch, kept: Kept = lambda guest, volume: ""
) -> Scene:
    """A host that has Quobyte's client, as far as anybody looks."""
    client = directory / "bin/mount.quobyte"
    client.parent.mkdir()
    client.touch(0o755)
    monkeypatch.setenv("PATH", str(client.parent))
    return Scene(directory, kept)
