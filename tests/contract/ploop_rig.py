"""ploop images for tests of their back end: a toy host with a toy ``ploop``."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mounts_rig import OnToyHost, tree
from virtuozzo_rig import SETTINGS, connection

from moorline.backends import bare_directory
from moorline.backends.virtuozzo import FileOrPloop, Virtuozzo
from moorline.errors import Failed
from moorline.ports import Command, Output
from moorline.testing.toy_host import ToyHost, ToyShare

FILES = frozenset({"disk-1", "dir/disk-2", "disk-3"})


class PloopRig(OnToyHost):
    """Each image has a device of its own; those of a cluster share a mount."""

    told_by_place = False
    good = connection("mds1:/clu:geh:/eim", "disk-1", "ploop")
    respelled = (connection("clu", "disk-1", "ploop"), connection("clu:new", "disk-1", "ploop"))
    neighbour = connection("clu", "dir/disk-2", "ploop")
    other = connection("other", "disk-3", "ploop")
    missing = good
    ready_at_once = False
    hostile: Mapping[str, Any] = {
        "a space": connection("clu", "a b", "ploop"),
        "a way out": connection("clu", "../x", "ploop"),
        "options": connection("clu", "disk-1", "ploop", options="-o x"),
    }
    secrets = ("geh", "eim")

    def __init__(self, directory: Path) -> None:
        self.base, self.names = directory / "mnt", directory / "dev"
        self.base.mkdir()
        self.configuration = directory / "etc"
        self.host = ToyHost(
            {"vstorage-mount": self.mount, "vstorage": lambda host, command: None}
            | {"ploop": self.ploop}
        )
        self.devices: dict[str, str] = {}
        """By the descriptor."""
        self.backend = self.make()
        self.c = self.backend.parse(self.good)
        self.at = f"{self.base}/{bare_directory.name('vzstorage', 'clu')}-ploop"
        self.name = Path(self.backend.link_name(self.c))

    def make(self, host: Any = None, **more: Any) -> FileOrPloop:
        virtuozzo = Virtuozzo(
            SETTINGS, configuration=self.configuration, has_command=self.host.programs.get
        )
        return virtuozzo.on(
            host or self.host, mount_point_base=self.base, ploop_names=self.names, **more
        )

    def mount(self, host: ToyHost, command: Command) -> None:
        cluster, at = command.argv[2:4]
        host.mount(f"vstorage://{cluster}", at, "fuse.vstorage", ToyShare(files=FILES))

    def ploop(self, host: ToyHost, command: Command) -> Output | None:
        verb, *words = command.argv[1:]
        if verb == "list":
            rows = [f"{device:<12} {Path(d).parent}/root.hds  x" for d, device in self.listed()]
            return Output("\n".join(rows), "")
        if verb == "mount":
            if words[0] in self.devices:
                raise Failed("it is mounted already")
            self.devices[words[0]] = f"ploop{random.randint(0, 99999)}"
        else:
            assert words[0] == "-d"
            (descriptor,) = [d for d, device in self.listed() if f"/dev/{device}" == words[1]]
            del self.devices[descriptor]
        return None

    def listed(self) -> list[tuple[str, str]]:
        return list(self.devices.items())

    def world(self) -> object:
        """Locks are told apart: a look makes none, and nothing is left of them."""
        names = {p.name: str(p.readlink()) if p.is_symlink() else "" for p in self.found()}
        return list(self.host.table), tree(self.base), names, dict(self.devices)

    def found(self) -> list[Path]:
        return sorted(self.names.iterdir()) if self.names.exists() else []

    def usurp(self) -> None:
        self.names.mkdir()
        self.name.write_text("somebody's")

    def remove(self) -> None:
        """As a reboot does: it takes the devices, their names and the mounts."""
        self.devices.clear()
        self.name.unlink()
        self.host.unmount(self.at)

    def verbs(self) -> list[str]:
        """What changed something, in order."""
        return [
            f"{command.argv[0]} {command.argv[1]}"
            if command.argv[0] == "ploop"
            else command.argv[0]
            for command in self.host.ran
            if command.argv != ("ploop", "list")
        ]
