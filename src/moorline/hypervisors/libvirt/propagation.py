"""The mount propagation trap: a mount that the host sees and a running guest does not.

libvirt runs QEMU in a mount namespace of its own. A mount made after the guest
started reaches it only if the mount above it is *shared* (mount_namespaces(7)),
as systemd makes ``/``. Elsewhere the attach fails with "No such file".
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

PID_FILES = Path("/run/libvirt/qemu")


def hidden_from(guest: str, path: str) -> bool:
    """Whether the mount that holds *path* is missing in the running guest's namespace.

    False if that cannot be told: not root, or not libvirt's system daemon. Device
    nodes are never hidden: libvirt makes them in the guest's own /dev.
    """
    if path.startswith("/dev/"):
        return False
    try:
        pid = int((PID_FILES / f"{guest}.pid").read_text())
        theirs = _mounts(f"/proc/{pid}/mountinfo")
        ours = _mounts("/proc/self/mountinfo")
    except (OSError, ValueError):
        return False
    return _device(ours, path) != _device(theirs, path)


def _mounts(file: str) -> dict[str, str]:
    """Device by mount point; the topmost mount at a point wins."""
    found = {}
    for line in Path(file).read_text(errors="surrogateescape").splitlines():
        fields = line.split(" ")
        found[_unescaped(fields[4])] = fields[2]
    return found


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), text)


def _device(mounts: dict[str, str], path: str) -> str:
    while path not in mounts and path != "/":
        path = os.path.dirname(path)  # noqa: PTH120 - text, not a path to touch
    return mounts.get(path, "")


def private_mount(path: str) -> str:
    """The mount that keeps mounts made beneath *path* from guests that run; '' if none does.

    Nor does one where all guests that run share our namespace (``namespaces = []``).
    """
    try:
        covering, shared = _covering("/proc/self/mountinfo", path)
    except OSError:
        return ""
    if shared or _namespaces_of_guests() == {_namespace("self")}:
        return ""
    return covering


def _namespaces_of_guests() -> set[int]:
    found = set()
    for file in PID_FILES.glob("*.pid"):
        if file.stem != "driver":  # libvirtd's own
            with suppress(OSError):  # it has ended
                found.add(_namespace(file.read_text().strip()))
    return found


def _namespace(pid: str) -> int:
    return os.stat(f"/proc/{pid}/ns/mnt").st_ino  # noqa: PTH116


def _covering(file: str, path: str) -> tuple[str, bool]:
    """The mount on which *path* lies, and whether it is shared."""
    found = {}
    for line in Path(file).read_text(errors="surrogateescape").splitlines():
        fields = line.split(" ")
        optional = fields[6 : fields.index("-", 6)]
        found[_unescaped(fields[4])] = any(field.startswith("shared:") for field in optional)
    while path not in found and path != "/":
        path = os.path.dirname(path)  # noqa: PTH120 - text, not a path to touch
    return path, found.get(path, True)
