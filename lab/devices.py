"""A /dev of the lab host's own: the nodes that libvirt, QEMU and FUSE need, with udev's modes.

On the machine's /dev libvirt stumbles over whatever is mounted twice ("Unable to
move /dev/pts"). KVM's node is there only if KVM works: libvirt forgets what it
learnt about QEMU (15 s) each time it sees a KVM that root can open and QEMU's
user cannot.
"""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

# name: major, minor, mode (Documentation/admin-guide/devices.txt in the Linux source)
NODES = {
    "null": (1, 3, 0o666),
    "zero": (1, 5, 0o666),
    "full": (1, 7, 0o666),
    "random": (1, 8, 0o666),
    "urandom": (1, 9, 0o666),
    "tty": (5, 0, 0o666),
    "ptmx": (5, 2, 0o666),
    "fuse": (10, 229, 0o666),
    "kvm": (10, 232, 0o666),
    "loop-control": (10, 237, 0o600),
    "net/tun": (10, 200, 0o666),
}
LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "fd/0",
    "stdout": "fd/1",
    "stderr": "fd/2",
}
LOOPS = 16


def furnish(work: Path, *, kvm: bool) -> None:
    """Replace /dev in this mount namespace, which must be private. *work*: an empty directory."""
    _run("mount", "-t", "tmpfs", "-o", "mode=755", "moorline-dev", str(work))
    for name in ("net", "pts", "shm"):
        (work / name).mkdir()
    for name, (major, minor, mode) in NODES.items():
        if name != "kvm" or kvm:
            _node(work / name, stat.S_IFCHR, major, minor, mode)
    for number in range(LOOPS):
        _node(work / f"loop{number}", stat.S_IFBLK, 7, number, 0o660)
    for name, target in LINKS.items():
        (work / name).symlink_to(target)
    _run("mount", "--bind", "/dev/pts", str(work / "pts"))  # our terminal is there
    _run("mount", "-t", "tmpfs", "-o", "mode=1777", "moorline-shm", str(work / "shm"))
    _run("umount", "--recursive", "--lazy", "/dev")
    _run("mount", "--move", str(work), "/dev")


def _node(path: Path, kind: int, major: int, minor: int, mode: int) -> None:
    os.mknod(path, kind, os.makedev(major, minor))
    path.chmod(mode)


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True)
