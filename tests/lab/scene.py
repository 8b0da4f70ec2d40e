"""Where the end-to-end tests play: a share, a guest that has no system, and witnesses.

Witnesses are the mount table, libvirt's XML and the stand-in's diary of calls:
what Moorline says of itself proves nothing.
"""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree as ET

from libvirt_rig import CONFIG, LIVE, marked, small_xml

from lab import processes
from lab.command import Moorline
from lab.quobyte.cluster import QuobyteVolume
from moorline import wiring
from moorline.model import VolumeId


class MountLine(NamedTuple):
    """A line of the mount table."""

    fstype: str
    source: str
    target: str


@dataclass(frozen=True)
class Volume:
    """A disk image on a share, as Cinder would hand it over."""

    id: str
    file: Path
    """Behind the back of every mount."""
    connection: Path
    """The connection_info, in a file."""
    share: QuobyteVolume

    def bytes(self, offset: int = 0, length: int = 65536) -> bytes:
        with self.file.open("rb") as file:
            file.seek(offset)
            return file.read(length)


class Scene:
    """One test's share and state directory, and what can be witnessed of them."""

    def __init__(self, moorline: Moorline, share: QuobyteVolume, connection: Any) -> None:
        assert moorline.state is not None
        self.moorline = moorline
        self.share = share
        self.libvirt = connection
        self.directory = moorline.state.parent

    # --- what a user does

    def volume(self, file: str = "", share: QuobyteVolume | None = None, **data: Any) -> Volume:
        """A new disk image; *data* overrides fields of its connection."""
        share = share or self.share
        id = str(uuid.uuid4())
        path = share.disk(file or f"volume-{id}", 2 << 20)
        info = share.connection(**{"name": path.name, "volume_id": id, **data})
        return Volume(id, path, self.write(f"{id}.json", info), share)

    def write(self, name: str, content: Any) -> Path:
        path = self.directory / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    def attach(
        self, guest: str, volume: Volume, *args: str, code: int = 0
    ) -> subprocess.CompletedProcess[str]:
        return self.moorline(
            "attach", guest, "--connection", str(volume.connection), *args, code=code
        )

    def detach(
        self, guest: str, volume: Volume, *args: str, code: int = 0
    ) -> subprocess.CompletedProcess[str]:
        return self.moorline("detach", guest, volume.id, *args, code=code)

    # --- what is so

    def mounts(self, share: QuobyteVolume | None = None) -> list[MountLine]:
        """The mounts of the share, by the name of the Quobyte volume in their source."""
        name = (share or self.share).name
        return [line for line in mount_table() if line.source.rpartition("/")[2] == name]

    def mount_point(self) -> Path:
        (line,) = self.mounts()
        return Path(line.target)

    def mount_calls(self) -> list[list[str]]:
        """The calls of mount.quobyte for the share: their arguments."""
        calls = [call["argv"] for call in self.share.cluster.calls()]
        return [argv for argv in calls if argv[0] == "mount.quobyte" and self.share.export in argv]

    def attachments(self) -> dict[str, tuple[str, str]]:
        """What is wanted and what is seen, by volume."""
        return {row["volume"]: (row["wanted"], row["seen"]) for row in self.moorline.json("list")}

    def is_clean(self) -> bool:
        """Nothing is wanted, nothing is mounted, and not even a mount point is left."""
        points = self.directory / "moorline/mnt"
        left = list(points.iterdir()) if points.exists() else []
        return not self.attachments() and not self.mounts() and not left


def findings(scene: Scene) -> dict[str, dict[str, str]]:
    """What the doctor finds, by check."""
    state = scene.directory / "moorline"
    with wiring.open_host(wiring.settings(state_dir=state), own=False) as moorline:
        return {each.check: each.to_dict() for each in moorline.maintenance.doctor().findings}


def mount_table() -> list[MountLine]:
    lines = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split()
        fstype, source = right.split()[:2]
        lines.append(MountLine(fstype, source, fields[4]))
    return lines


def disk(domain: Any, volume: Volume | str, *, inactive: bool = False) -> ET.Element | None:
    """The volume's <disk> in the running guest or in its definition."""
    id = volume if isinstance(volume, str) else volume.id
    return marked(domain, VolumeId(id), CONFIG if inactive else LIVE)


def halves(domain: Any, volume: Volume | str) -> tuple[bool, bool]:
    """Whether the volume is a disk of the running guest, and of its definition."""
    live = domain.isActive() and disk(domain, volume) is not None
    return live, disk(domain, volume, inactive=True) is not None


def attribute(element: ET.Element | None, path: str, name: str) -> str | None:
    """An attribute of something beneath *element*."""
    assert element is not None
    found = element.find(path)
    return None if found is None else found.get(name)


@contextmanager
def small_guest(connection: Any, name: str, *, running: bool = False) -> Iterator[Any]:
    """A guest without a system: it starts at once, and lets no disk go while it is paused."""
    xml = ET.fromstring(small_xml("q35", 6, "virtio-scsi"))
    xml.find("name").text = name  # type: ignore[union-attr]
    domain = connection.defineXML(ET.tostring(xml, encoding="unicode"))
    with gone_at_the_end(connection, domain.UUIDString()):
        if running:
            start_paused(domain)
        yield domain


@contextmanager
def gone_at_the_end(connection: Any, uuid: str) -> Iterator[None]:
    """Stop the guest and undefine it, if it is there."""
    try:
        yield
    finally:
        for left in connection.listAllDomains():
            if left.UUIDString() == uuid:
                if left.isActive():
                    left.destroy()
                left.undefine()


def start_paused(domain: Any) -> None:
    domain.createWithFlags(1)  # VIR_DOMAIN_START_PAUSED


def daemons(share: QuobyteVolume) -> list[int]:
    """The processes that serve mounts of the share: forks of the command that mounted it."""
    return processes.running("mount.quobyte", share.export)


def kill_daemon(share: QuobyteVolume) -> None:
    """Kill the share's FUSE daemon as a crash would: the mount stays, with ENOTCONN."""
    (pid,) = daemons(share)
    processes.kill(pid)
