"""The mount propagation trap: a mount that the host sees and a running guest does not.

libvirt runs QEMU in a mount namespace of its own. A mount made after the guest
started reaches it only if the mount above it is *shared* (mount_namespaces(7)),
as systemd makes ``/``. Elsewhere the attach fails with "No such file".
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

PID_FILES = Path("/run/libvirt/qemu")
PROC = Path("/proc")


def hidden_from(guest: str, path: str) -> bool:
    """Whether the mount that holds *path* is missing in the running guest's namespace.

    False if that cannot be told: not root, or not libvirt's system daemon. Device
    nodes are never hidden: libvirt makes them in the guest's own /dev.
    """
    if path.startswith("/dev/"):
        return False
    try:
        pid = int((PID_FILES / f"{guest}.pid").read_text())
        theirs, ours = table(PROC / str(pid)), table(PROC / "self")
    except (OSError, ValueError):
        return False
    return covering(ours, path).device != covering(theirs, path).device


class _Mount(NamedTuple):
    target: str
    device: str
    shared: bool


class Table(NamedTuple):
    """The mount table of a process."""

    mounts: Mapping[str, _Mount]
    """By where they are; the topmost at a point wins."""
    devices: Mapping[int, str]
    """Of every mount, by its number."""


def table(process: Path) -> Table:
    """The mounts that a process (``/proc/PID``) sees. Raises OSError."""
    return _parsed((process / "mountinfo").read_text(errors="surrogateescape"))


@lru_cache(maxsize=16)  # they are read often, change seldom, and guests of one kind see the same
def _parsed(text: str) -> Table:
    found, devices = {}, {}
    for line in text.splitlines():
        fields = line.split(" ")
        target, optional = _unescaped(fields[4]), fields[6 : fields.index("-", 6)]
        shared = any(field.startswith("shared:") for field in optional)
        found[target] = _Mount(target, fields[2], shared)
        devices[int(fields[0])] = fields[2]
    return Table(found, devices)


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), text)


def covering(table: Table, path: str) -> _Mount:
    """The mount on which *path* lies."""
    while path not in table.mounts and path != "/":
        path = os.path.dirname(path)  # noqa: PTH120 - text, not a path to touch
    return table.mounts.get(path, _Mount("/", "", True))


def private_mount(path: str) -> str:
    """The mount that keeps mounts made beneath *path* from guests that run; '' if none does.

    Nor does one where all guests that run share our namespace (``namespaces = []``).
    """
    try:
        above = covering(table(PROC / "self"), path)
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
