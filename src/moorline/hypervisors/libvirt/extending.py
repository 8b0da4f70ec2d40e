"""Finds the size of a disk's storage, and whether QEMU can show a new size to a running guest."""

from __future__ import annotations

from pathlib import Path

from moorline.errors import Failed, NotFound, Refused
from moorline.hypervisors.libvirt.domain_xml import Domain, MarkedDisk
from moorline.hypervisors.libvirt.mount_propagation import PID_FILES, PROC, mounts_of
from moorline.hypervisors.libvirt.qemu_open_files import is_its_place, opened, unlike
from moorline.model import GuestId, VolumeId
from moorline.ports import Measure, Places

SECTOR = 512
"""Bytes of a sector. QEMU rounds the size of a file up to whole sectors."""


def measure_here(path: Path) -> int:
    """The size, for programs without a ``Host``: it hangs if the storage does."""
    with path.open("rb") as file:
        return file.seek(0, 2)


def stored(disk: MarkedDisk, measure: Measure) -> int:
    """The bytes of the file or device behind *disk*. Raises Failed, Uncertain, Refused."""
    if not disk.source.startswith("/"):
        raise Refused(
            f"{disk.source} is a server's disk, of which no new size is shown to guests yet",
            hint="detach it and attach it again",
        )
    try:
        size = measure(Path(disk.source))
    except OSError as e:
        raise Failed(f"{disk.source} cannot be looked at: {e.strerror}") from e
    return -(-size // SECTOR) * SECTOR


def replaced(
    guest: GuestId,
    name: str,
    source: str,
    measure: Measure,
    places: Places,
    proc: Path = PROC,
    pid_files: Path = PID_FILES,
) -> str:
    """Why the file that a running guest has open is not the one at its path; '': it is.

    *source*: the path; '': the guest has none open. Raises Failed, Uncertain.
    """
    if not source.startswith("/") or source.startswith("/dev/"):
        return ""
    gone = False
    try:
        # This refreshes what the kernel knows of the name on a share, so that nothing below hangs.
        measure(Path(source))
    except FileNotFoundError:
        gone = True
    except OSError as e:
        raise Failed(f"{source} cannot be looked at: {e.strerror}") from e
    has = opened(guest, name, proc, pid_files)
    if has is None or (not gone and (source in has or _names(source, places) & has)):
        return ""
    return unlike(name, source, gone=gone)


def _names(path: str, places: Places) -> frozenset[str]:
    mounts = mounts_of(PROC / "self")
    return frozenset(at for at in places([path])[path] or () if is_its_place(path, at, mounts))


def extensible(domain: Domain, volume: VolumeId, *, growing: bool = False) -> MarkedDisk:
    """The disk as the guest that runs has it, or will have it. Raises NotFound, Refused.

    *growing*: its file is to be made larger, by whoever has it open.
    """
    if growing and domain.saved is not None:
        raise Refused(
            f"{domain.name} was saved while it ran, and goes on with its disks as they were",
            hint=f"start it first: virsh start {domain.name}",
        )
    half = domain.live or domain.defined
    disk = half.disks.get(volume) if half else None
    if disk is None:
        raise NotFound(f"volume {volume} is not attached to {domain.name}")
    if domain.live is not None and disk.readonly:
        raise Refused(
            f"volume {volume} is read-only: QEMU cannot let {domain.name} see another size",
            hint="detach it and attach it again",
        )
    if domain.live is not None and disk.format != "raw" and not growing:
        # Another writer would destroy the image while QEMU has it open.
        raise Refused(
            f"volume {volume} is {disk.format}, and cannot be made larger while {domain.name} runs",
            hint="moorline extend --grow has the guest do it",
        )
    return disk
