"""The mount propagation trap: a mount that the host sees and a running guest does not.

libvirt runs QEMU in a mount namespace of its own. A mount made after the guest
started reaches it only if the mount above it is *shared* (mount_namespaces(7)),
as systemd makes ``/``. Elsewhere the attach fails with "No such file".
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from moorline.errors import Refused
from moorline.ports import mount
from moorline.ports.mount import Mount

PID_FILES = Path("/run/libvirt/qemu")
PROC = Path("/proc")


def hidden_from(guest: str, path: str) -> bool:
    """Whether the mount that holds *path* is missing in the running guest's namespace.

    False if that cannot be told: not root, or not libvirt's system daemon. Device
    nodes are never hidden: libvirt makes them in the guest's own /dev. A server's disk is on no
    mount.
    """
    if path.startswith("/dev/") or not path.startswith("/"):
        return False
    try:
        pid = int((PID_FILES / f"{guest}.pid").read_text())
        theirs, ours = mounts_of(PROC / str(pid)), mounts_of(PROC / "self")
    except (OSError, ValueError):
        return False
    return covering(ours, path).device != covering(theirs, path).device


def mounts_of(process: Path) -> Sequence[Mount]:
    """The mounts that a process (``/proc/PID``) sees. Raises OSError."""
    with open(f"{process}/mountinfo", "rb", buffering=0) as table:  # noqa: PTH123 - read often
        return mount.mounts_in(table.read().decode("utf-8", "surrogateescape"))


def covering(mounts: Sequence[Mount], path: str) -> Mount:
    """The mount on which *path* lies."""
    return mount.covering(path, mount.by_target(mounts)) or Mount(0, "", "/", "", "", shared=True)


def type_at(path: str) -> str:
    """The type of the file system on which *path* lies; '': that cannot be told."""
    try:
        return covering(mounts_of(PROC / "self"), path).fstype
    except OSError:
        return ""


def private_mount(path: str) -> str:
    """The mount that keeps mounts made beneath *path* from guests that run; '' if none does.

    Nor does one where all guests that run share our namespace (``namespaces = []``).
    """
    try:
        above = covering(mounts_of(PROC / "self"), path)
    except OSError:
        return ""
    if above.shared or _namespaces_of_guests() == {_namespace("self")}:
        return ""
    return above.target


def _namespaces_of_guests() -> set[int]:
    found = set()
    for file in PID_FILES.glob("*.pid"):
        if file.stem != "driver":  # libvirtd's own
            with suppress(OSError):  # it has ended
                found.add(_namespace(file.read_text().strip()))
    return found


def _namespace(pid: str) -> int:
    return os.stat(f"/proc/{pid}/ns/mnt").st_ino  # noqa: PTH116


def hidden(name: str, path: str) -> Refused:
    """The error of an attach of *path*, which is hidden from guest *name*."""
    return Refused(
        f"{name} cannot see {path}: it was mounted after the guest had started,"
        " and mounts do not propagate into the guest's mount namespace",
        hint="run `mount --make-rshared /` and restart the guest"
        " (or set namespaces = [] in libvirt's qemu.conf)",
    )
