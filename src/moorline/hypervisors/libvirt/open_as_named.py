"""Sees that each file that a guest has open is the one at its path, before another host opens that.

A disk's file can be moved away, replaced or deleted while its guest runs, and so can an image
beneath it. The guest goes on with the file that it has open; whoever opens the path gets another.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from moorline.errors import Failed, MoorlineError, Refused
from moorline.hypervisors.libvirt.domain_xml import Half
from moorline.hypervisors.libvirt.extending import replaced
from moorline.hypervisors.libvirt.mount_propagation import PID_FILES, PROC
from moorline.hypervisors.libvirt.network_xml import is_on_a_socket
from moorline.hypervisors.libvirt.qemu_open_files import OpenDisks, opened
from moorline.hypervisors.libvirt.storage_pools import path_of_volume
from moorline.model import Disk, DiskState, GuestId, VolumeId
from moorline.ports import Measure, Places

_STORED = frozenset(("disk", "mirror", "backingStore", "dataStore"))


def demand_as_named(
    virt: Any,
    guest: GuestId,
    half: Half,
    measure: Measure,
    places: Places,
    proc: Path = PROC,
    pid_files: Path = PID_FILES,
) -> None:
    """See that what runs as *half* has its disks' files open by their names, all the way down.

    Devices are left out: where a path of ``/dev`` leads to is another host's own. Blocks for a
    look's deadline where a share hangs. Raises Refused with the guest, the disk and the path;
    Failed: a file cannot be looked at.
    """
    disks = {device: paths for device, paths in _files(virt, half) if paths}
    if disks and opened(guest, half.name, proc, pid_files) is None:
        raise Refused(
            f"{half.name} stays: it cannot be seen which files it has open",
            hint="whoever sends it must be root, and see the host's processes",
        )
    for device, paths in disks.items():
        for path in paths:
            if why := _replaced(guest, half.name, device, path, measure, places, proc, pid_files):
                raise _stays(half.name, device, why)
        disk = Disk(DiskState.WHOLE, device, paths[0], beneath=paths[1:])
        # Last: what the names on a share lead to, the kernel knows since it was asked for them.
        (seen,) = OpenDisks(
            half.name, {VolumeId(device): disk}, places, proc=proc, pid_files=pid_files
        ).values()
        if why := seen.stale or seen.replaced:
            raise _stays(half.name, device, why)


def _files(virt: Any, half: Half) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each disk, with its files: the one that the guest writes to first."""
    for disk in half.xml.iterfind("devices/disk"):
        target = disk.find("target")
        device = target.get("dev", "") if target is not None else ""
        yield device, tuple(_paths(virt, half.name, device, disk))


def _paths(virt: Any, guest: str, device: str, disk: ET.Element) -> Iterator[str]:
    """A disk's file, what it is being copied to, and what lies beneath."""
    for each in disk.iter():
        source = each.find("source")
        if each.tag not in _STORED or source is None:
            continue
        if is_on_a_socket(source):
            raise Refused(
                f"{guest} stays: its disk {device} is reached by a socket of this host",
                hint="name its server by host and port, or stop the guest before it goes",
            )
        path = source.get("file", "")
        if source.get("pool"):
            path = path_of_volume(virt, source.get("pool", ""), source.get("volume", ""))
        if path and not path.startswith("/"):
            raise Refused(f"{guest} stays: it is not known where {path} lies, its disk {device}")
        if path and not path.startswith("/dev/"):
            yield path


def _replaced(
    guest: GuestId,
    name: str,
    device: str,
    path: str,
    measure: Measure,
    places: Places,
    proc: Path,
    pid_files: Path,
) -> str:
    try:
        return replaced(guest, name, path, measure, places, proc, pid_files)
    except MoorlineError as e:  # nothing was begun: that it is uncertain would say so
        raise Failed(f"{name} stays, as its disk {device} cannot be looked at: {e}") from e


def _stays(guest: str, device: str, why: str) -> Refused:
    copy = ["virsh", "blockcopy", guest, device, "NEW-FILE", "--transient-job", "--wait", "--pivot"]
    return Refused(
        f"{guest} stays: another host would open another file as its disk {device}: {why}",
        hint="move the file back, if it was moved on this host; or copy within the guest what"
        f" shall stay, or all of it to a new file on the share: `{shlex.join(copy)}`",
    )
