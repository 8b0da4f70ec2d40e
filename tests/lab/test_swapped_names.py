"""Names that change in the moment of the attach: no guest keeps a file that was not checked."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from libvirt_rig import until
from scene import Scene

from lab.guest import Guest

ROUNDS = 5
SWAP_SECONDS = 0.015
HOW = ("--format", "raw", "--bus", "scsi", "--timeout", "5")
"""A SCSI disk is let go at once; a guest needs five seconds for one on PCI Express."""
_EXCHANGE = 2
"""RENAME_EXCHANGE of renameat2(2)."""


def exchange(one: Path, other: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    at = -100  # AT_FDCWD
    assert libc.renameat2(at, os.fsencode(one), at, os.fsencode(other), _EXCHANGE) == 0


def image(file: Path) -> None:
    file.write_bytes(bytes(1 << 20))
    file.chmod(0o666)


@contextmanager
def swapping(disk: Path, link: Path) -> Iterator[None]:
    """Exchange the disk and a symbolic link, again and again; at the end the disk is in place."""
    stop = threading.Event()

    def swap() -> None:
        while not stop.wait(SWAP_SECONDS):
            exchange(disk, link)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        if disk.is_symlink():
            exchange(disk, link)


def opened(guest: Guest) -> set[int]:
    """The inode numbers of what its QEMU has open."""
    process = Path("/proc", Path(f"/run/libvirt/qemu/{guest.name}.pid").read_text().strip())
    found = set()
    for each in (process / "fd").iterdir():
        with suppress(OSError):
            found.add(each.stat().st_ino)
    return found


def until_closed(guest: Guest, inodes: set[int]) -> None:
    until(lambda: not inodes & opened(guest))


@pytest.mark.parametrize("secret_is", ["beside", "on the host"])
def test_a_symlink_that_comes_and_goes(scene: Scene, guest: Guest, secret_is: str) -> None:
    directory = scene.directory / "disks"
    directory.mkdir()
    disk, link = directory / "disk.raw", directory / "link"
    secret = (directory if secret_is == "beside" else scene.directory) / "secret.raw"
    image(disk)
    link.symlink_to(secret)
    mine = disk.stat().st_ino
    for _ in range(ROUNDS):
        # Made anew: libvirt may have changed the owner of the last one, and QEMU opened the disk.
        secret.unlink(missing_ok=True)
        image(secret)
        theirs = secret.stat()
        with swapping(disk, link):
            done = scene.moorline("attach", guest.name, str(disk), *HOW, code=None)
            has = opened(guest)
        assert theirs.st_ino not in has, done.stderr
        assert mine in has or done.returncode, done.stderr
        if "and not" in done.stderr:
            assert (secret.stat().st_uid, secret.stat().st_gid) == (theirs.st_uid, theirs.st_gid)
        scene.moorline("detach", guest.name, str(disk), code=None)
        until_closed(guest, {mine, theirs.st_ino})
