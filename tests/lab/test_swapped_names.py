"""Names that change: no guest keeps an unchecked file, and a detach takes no other file's owner."""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from libvirt_rig import until
from scene import Scene, kill_daemon

from lab.guest import Guest
from moorline.errors import Failed, Refused
from moorline.hypervisors.libvirt.hypervisor import Libvirt
from moorline.model import GuestId, VolumeId

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
        if "and not" in done.stderr and f"{secret} belongs to QEMU's user" not in done.stderr:
            assert owner(secret) == (theirs.st_uid, theirs.st_gid), done.stderr
        scene.moorline("detach", guest.name, str(disk), code=None)
        until_closed(guest, {mine, theirs.st_ino})


def owner(file: Path) -> tuple[int, int]:
    st = file.stat()
    return st.st_uid, st.st_gid


SECRET = (4711, 4712)


@pytest.fixture
def secret(scene: Scene) -> Path:
    """Somebody's file, beside the directory of the disks."""
    file = scene.directory / "secret.raw"
    image(file)
    os.chown(file, *SECRET)
    return file


@pytest.fixture
def disk(scene: Scene) -> Path:
    directory = scene.directory / "disks"
    directory.mkdir()
    image(directory / "disk.raw")
    return directory / "disk.raw"


def let_go(scene: Scene, guest: Guest) -> None:
    """Take the disk away all the same, as where its path changes once that was looked at."""
    (row,) = (row for row in scene.moorline.json("list") if row["guest"] == guest.name)
    scene.moorline("detach", guest.name, row["volume"], code=3)
    hypervisor, me = Libvirt(), GuestId(row["guest_id"])
    volume = VolumeId(row["volume"])
    hypervisor.detach(me, volume)
    until(lambda: volume not in hypervisor.disks(me))
    hypervisor.close()
    scene.moorline("detach", guest.name, row["volume"])


def lead_to(disk: Path, file: Path) -> None:
    disk.rename(disk.with_name("moved"))
    disk.symlink_to(file)


@pytest.mark.parametrize("how", ["a symbolic link", "another file", "a mount on top"])
def test_a_detach_leaves_the_owner_of_what_the_path_leads_to_by_then(
    scene: Scene, guest: Guest, disk: Path, secret: Path, how: str
) -> None:
    scene.moorline("attach", guest.name, str(disk), *HOW)
    has = disk.stat().st_ino
    if how == "a mount on top":
        subprocess.run(["mount", "--bind", secret, disk], check=True)
    elif how == "another file":
        disk.rename(disk.with_name("moved"))
        secret.rename(disk)
    else:
        lead_to(disk, secret)
    try:
        if how == "a mount on top":
            scene.moorline("detach", guest.name, str(disk))
        else:
            let_go(scene, guest)
        until_closed(guest, {has})
        assert owner(disk) == SECRET
        assert not os.listxattr(disk)
    finally:
        if how == "a mount on top":
            subprocess.run(["umount", disk], check=True)


def test_a_file_beneath_an_image_that_leads_elsewhere(
    scene: Scene, guest: Guest, disk: Path, secret: Path
) -> None:
    above = disk.with_name("above.qcow2")
    create = ("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", disk.name, above)
    subprocess.run(create, check=True)
    scene.moorline("attach", guest.name, str(above), "--format", "qcow2", *HOW[2:])
    has = {disk.stat().st_ino, above.stat().st_ino}
    lead_to(disk, secret)
    let_go(scene, guest)
    until_closed(guest, has)
    assert owner(secret) == SECRET
    assert owner(above) == (0, 0)


def test_a_guest_that_lets_go_when_nobody_looks_any_more(
    scene: Scene, guest: Guest, disk: Path, secret: Path
) -> None:
    """As if we had been killed once libvirt was asked."""
    scene.moorline("attach", guest.name, str(disk), "--format", "raw")
    (row,) = scene.moorline.json("list")
    has = disk.stat().st_ino
    lead_to(disk, secret)
    hypervisor = Libvirt()
    guest.domain.suspend()
    try:
        for _ in range(2):
            with pytest.raises(Failed, match="is paused"):
                hypervisor.detach(GuestId(row["guest_id"]), VolumeId(row["volume"]))
            assert owner(secret) == SECRET
    finally:
        hypervisor.close()
        guest.domain.resume()
    until_closed(guest, {has})
    until(lambda: not os.listxattr(secret))
    assert owner(secret) == SECRET
    scene.moorline("detach", guest.name, str(disk))


def test_a_pipe_at_the_path_is_not_opened(guest: Guest, scene: Scene, disk: Path) -> None:
    """QEMU opens the path once more when a disk goes, and would wait for ever."""
    scene.moorline("attach", guest.name, str(disk), *HOW)
    away = disk.with_name("away")
    disk.rename(away)
    os.mkfifo(disk)
    scene.moorline("detach", guest.name, str(disk), code=3)
    (row,) = scene.moorline.json("list")
    hypervisor = Libvirt()
    with pytest.raises(Refused, match="is a pipe by now"):
        hypervisor.detach(GuestId(row["guest_id"]), VolumeId(row["volume"]))
    hypervisor.close()
    assert guest.agent.check("echo still here", deadline=20) == ["still here"]
    disk.unlink()
    away.rename(disk)
    scene.moorline("detach", guest.name, str(disk))
    until_closed(guest, {disk.stat().st_ino})


def test_a_disk_that_another_guest_has(
    scene: Scene, guest: Guest, second_guest: Guest, disk: Path, secret: Path
) -> None:
    """It stays QEMU's, and is its first owner's when the other guest lets it go."""
    scene.moorline("attach", guest.name, str(disk), *HOW)
    scene.moorline("attach", second_guest.name, str(secret), *HOW)
    has, its, qemu = disk.stat().st_ino, secret.stat().st_ino, owner(secret)
    assert qemu != SECRET
    lead_to(disk, secret)
    let_go(scene, guest)
    until_closed(guest, {has})
    assert owner(secret) == qemu
    scene.moorline("detach", second_guest.name, str(secret))
    until_closed(second_guest, {its})
    until(lambda: not os.listxattr(secret))
    assert owner(secret) == SECRET


def test_a_share_that_keeps_no_notes(scene: Scene, guest: Guest) -> None:
    volume, other = scene.volume(), scene.volume()
    scene.attach(guest.name, volume, *HOW[2:])
    os.chown(other.file, *SECRET)
    there = scene.mount_point() / volume.file.name
    has = there.stat().st_ino
    there.rename(there.with_name("moved"))
    there.with_name(other.file.name).rename(there)
    let_go(scene, guest)
    until_closed(guest, {has})
    assert owner(volume.file) == SECRET


def test_the_volume_itself_on_a_share_that_was_mounted_anew(scene: Scene, guest: Guest) -> None:
    volume = scene.volume()
    scene.attach(guest.name, volume, *HOW[2:])
    assert owner(volume.file) != (0, 0)
    kill_daemon(scene.share)
    scene.moorline("sweep", code=5)
    assert (scene.mount_point() / volume.file.name).exists()
    scene.detach(guest.name, volume)
    assert owner(volume.file) == (0, 0)
