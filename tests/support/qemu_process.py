"""The process of a guest in a process table that a test makes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from moorline.hypervisors.libvirt import qemu_open_files
from moorline.model import Disk, DiskState, VolumeId
from moorline.ports.inspection import OpenFile

ROOT = "20 1 254:1 / / rw shared:1 - ext4 /dev/vda rw\n"
OLD = "30 20 0:41 / /mnt/s rw - fuse.quobyte q@r/v rw\n"
NEW = "31 20 0:42 / /mnt/s rw - fuse.quobyte q@r/v rw\n"
PATH = "/mnt/s/disk"


class Qemu:
    def __init__(self, root: Path) -> None:
        self.root = root
        for process in ("self", "7/fd", "7/fdinfo"):
            (root / process).mkdir(parents=True)
        self.see(ours=ROOT + OLD, theirs=ROOT + OLD)

    def see(self, *, ours: str, theirs: str) -> None:
        (self.root / "self/mountinfo").write_text(ours)
        (self.root / "7/mountinfo").write_text(theirs)

    def open(self, number: int, path: str, mount: int, inode: int = 5, flags: str = "02") -> None:
        (self.root / f"7/fd/{number}").symlink_to(path)
        info = f"pos:\t0\nflags:\t{flags}\nmnt_id:\t{mount}\nino:\t{inode}\nlock:\t1: OFDLCK\n"
        (self.root / f"7/fdinfo/{number}").write_text(info)

    def opens(self, *numbers: int) -> Sequence[OpenFile]:
        only = numbers or None
        return qemu_open_files.open_files("web01", only, self.root, self.root / "run")

    def disk(self, path: str = PATH) -> Disk:
        disk = Disk(DiskState.WHOLE, "vdb", path)
        return self.disks({VolumeId("v"): disk})[VolumeId("v")]

    def disks(self, disks: Mapping[VolumeId, Disk], **links: str) -> qemu_open_files.OpenDisks:
        """*links*: symbolic links, by name in /mnt, to directories there; ``''``: unknown."""

        def places(paths: Iterable[str]) -> Mapping[str, frozenset[str] | None]:
            return {path: self._led(path, links) for path in paths}

        return qemu_open_files.OpenDisks("web01", disks, places, None, self.root, self.root / "run")

    def _led(self, path: str, links: Mapping[str, str]) -> frozenset[str] | None:
        to = links.get(Path(path).name, Path(path).name)
        return frozenset({str(Path(path).with_name(to))}) if to else None

    def is_stale(self, path: str = PATH) -> bool:
        return bool(self.disk(path).stale)
