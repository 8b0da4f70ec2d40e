"""How large a disk's storage is, and whether QEMU can let a guest that runs see it."""

from __future__ import annotations

from pathlib import Path

from moorline.errors import Failed, NotFound, Refused
from moorline.hypervisors.libvirt.domain import Domain, MarkedDisk
from moorline.hypervisors.libvirt.openfiles import opened, unlike
from moorline.model import GuestId, VolumeId
from moorline.ports import Measure, Places

SECTOR = 512
"""QEMU counts in these: it fills up a file's last one."""


def measure_here(path: Path) -> int:
    """In this process, which hangs if the storage does. For programs without a ``Host``."""
    with path.open("rb") as file:
        return file.seek(0, 2)


def stored(disk: MarkedDisk, measure: Measure) -> int:
    """The bytes of the file or device behind *disk*. Raises Failed, Uncertain."""
    try:
        size = measure(Path(disk.source))
    except OSError as e:
        raise Failed(f"{disk.source} cannot be looked at: {e.strerror}") from e
    return -(-size // SECTOR) * SECTOR


def replaced(domain: Domain, disk: MarkedDisk, measure: Measure, places: Places) -> str:
    """Why the file that a running guest has open is not the one at its path; mostly ''.

    Raises Failed, Uncertain.
    """
    if domain.live is None or disk.source.startswith("/dev/"):
        return ""
    gone = False
    try:
        # So the kernel learns what became of the name on a share, and hangs in nothing below.
        measure(Path(disk.source))
    except FileNotFoundError:
        gone = True
    except OSError as e:
        raise Failed(f"{disk.source} cannot be looked at: {e.strerror}") from e
    has = opened(GuestId(domain.uuid))
    names = {disk.source} | (places([disk.source])[disk.source] or frozenset())
    if has is None or (names & has and not gone):
        return ""
    return unlike(domain.name, disk.source, gone=gone)


def extensible(domain: Domain, volume: VolumeId) -> MarkedDisk:
    """The disk as the guest that runs has it, or will have it. Raises NotFound, Refused."""
    half = domain.live or domain.defined
    disk = half.disks.get(volume) if half else None
    if disk is None:
        raise NotFound(f"volume {volume} is not attached to {domain.name}")
    if domain.live is not None and disk.readonly:
        raise Refused(
            f"volume {volume} is read-only: QEMU cannot let {domain.name} see another size",
            hint="detach it and attach it again",
        )
    if domain.live is not None and disk.format != "raw":
        # Whoever else writes to it while QEMU has it open destroys it.
        raise Refused(
            f"volume {volume} is {disk.format}, and cannot be made larger while {domain.name} runs",
            hint="detach the volume first, and attach it again afterwards",
        )
    return disk
