"""Disks that QEMU has open on a mount that is no more, from a process table of the test."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from moorline.hypervisors.libvirt.qemu_open_files import AsChecked, OpenDisks, is_its_place
from moorline.model import Disk, DiskState, VolumeId
from moorline.ports.mount import mounts_in
from tests.support.qemu_process import NEW, OLD, PATH, ROOT, Qemu


@pytest.fixture
def qemu(tmp_path: Path) -> Qemu:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/web01.pid").write_text("7\n")
    return Qemu(tmp_path)


def test_what_is_open_on_the_mount_that_is_there_is_well(qemu: Qemu) -> None:
    qemu.open(9, PATH, 30)
    assert not qemu.is_stale()


def test_a_lazy_umount_reached_the_guest_and_a_new_mount_is_there(qemu: Qemu) -> None:
    qemu.open(9, "/disk", 30)
    qemu.see(ours=ROOT + NEW, theirs=ROOT + NEW)
    assert qemu.is_stale()
    qemu.open(10, PATH, 31)  # attached anew, and the old one not closed yet
    assert not qemu.is_stale()


def test_the_guest_keeps_the_old_mount_in_a_namespace_of_its_own(qemu: Qemu) -> None:
    qemu.open(9, PATH, 30)
    qemu.see(ours=ROOT + NEW, theirs=ROOT + OLD)
    assert qemu.is_stale()


def test_what_is_not_seen_open_is_not_told(qemu: Qemu) -> None:
    qemu.open(9, "/another", 30)
    qemu.see(ours=ROOT + NEW, theirs=ROOT + NEW)
    assert not qemu.is_stale()
    assert not qemu.is_stale("/dev/sdb")


def test_a_guest_without_a_process_is_not_looked_at(qemu: Qemu) -> None:
    (qemu.root / "run/web01.pid").unlink()
    assert not qemu.is_stale()


def test_the_one_that_was_just_seen_is_not_looked_for_again(qemu: Qemu) -> None:
    qemu.open(9, "/another", 20)
    mine, other = VolumeId("v"), VolumeId("w")
    disks = {
        mine: Disk(DiskState.WHOLE, "vdb", PATH),
        other: Disk(DiskState.WHOLE, "vdc", "/mnt/s/other"),
    }
    run = qemu.root / "run"
    looked = OpenDisks("web01", disks, dict.fromkeys, AsChecked(PATH), qemu.root, run)
    assert not looked[mine].replaced
    qemu.open(10, "/mnt/s/other (deleted)", 30)
    assert looked[other].replaced


def test_the_process_is_looked_at_when_a_disk_is_asked_for_and_not_before(qemu: Qemu) -> None:
    """Most looks at a guest are about another disk, or about none that is there."""
    disks = {VolumeId(name): Disk(DiskState.WHOLE, "vdb", PATH) for name in ("v", "w")}
    looked = qemu.disks(disks)
    assert (set(looked), len(looked), "x" in looked) == (set(disks), 2, False)
    qemu.open(9, "/disk", 30)
    qemu.see(ours=ROOT + NEW, theirs=ROOT + NEW)
    assert all(looked[volume].stale for volume in looked)


def test_a_file_without_its_name_is_told(qemu: Qemu) -> None:
    qemu.open(9, f"{PATH} (deleted)", 30)
    assert "deleted while the guest ran" in qemu.disk().replaced
    assert not qemu.is_stale()
    qemu.open(10, PATH, 30)  # attached anew, and the old one not closed yet
    assert not qemu.disk().replaced


@pytest.mark.parametrize("named", [" (deleted)", "-moved", None])
def test_a_file_beneath_a_disk_is_told_too(qemu: Qemu, named: str | None) -> None:
    base = "/mnt/s/base"
    qemu.open(9, PATH, 30)
    qemu.open(10, base + (named or ""), 30, flags="00")
    disk = Disk(DiskState.WHOLE, "vdb", PATH, beneath=(base,))
    (seen,) = qemu.disks({VolumeId("v"): disk}).values()
    assert (f"at {base}:" in seen.replaced) is bool(named)


BOUND = "32 30 0:41 /d /mnt/s rw - fuse.quobyte q@r/v rw\n"
SECRET = "32 30 0:41 /secret /mnt/s/disk rw - fuse.quobyte q@r/v rw\n"
SAME = "32 30 0:41 /disk /mnt/s/disk rw - fuse.quobyte q@r/v rw\n"


@pytest.mark.parametrize(
    ("above", "told"), [(NEW, True), (BOUND, True), (SECRET, True), (SAME, False), ("", False)]
)
def test_a_mount_that_covers_the_file_is_told(qemu: Qemu, above: str, told: bool) -> None:
    """The guest goes on with the file beneath it, and whoever asks for the path gets another."""
    qemu.open(9, PATH, 30)
    qemu.see(ours=ROOT + OLD + above, theirs=ROOT + OLD)
    assert qemu.is_stale() is told


@pytest.mark.parametrize("name", ["/mnt/s/other (deleted)", "/disk (deleted)"])
def test_another_file_without_a_name_is_none_of_it(qemu: Qemu, name: str) -> None:
    qemu.open(9, name, 30)
    qemu.open(10, PATH, 30)
    assert not qemu.disk().replaced


@pytest.mark.parametrize(("link", "told"), [("t", True), ("", False), ("real", True)])
def test_what_is_open_by_no_name_of_the_disk_is_told(qemu: Qemu, link: str, told: bool) -> None:
    """A directory may have become a symbolic link, or it is not known."""
    qemu.open(9, "/mnt/real/disk", 30)
    (disk,) = qemu.disks({VolumeId("v"): Disk(DiskState.WHOLE, "vdb", PATH)}, s=link).values()
    assert bool(disk.replaced) is told


@pytest.mark.parametrize(
    ("path", "at", "may"),
    [
        ("/srv/s/disk", "/mnt/s/disk", True),  # /srv leads to /mnt
        ("/mnt/s/d/disk", "/mnt/s/e/disk", False),  # d was turned into a link
        ("/mnt/s/d/disk", "/secrets/disk", False),
        ("/srv/disk", "/mnt/s/disk", False),
        ("/disk", "/disk", True),
    ],
)
def test_a_link_above_a_mount_point_is_well_and_one_beneath_it_is_not(
    path: str, at: str, may: bool
) -> None:
    assert is_its_place(path, at, mounts_in(ROOT + OLD)) is may


@pytest.mark.parametrize(("name", "told"), [("/another", False), (f"{PATH} (deleted)", True)])
def test_half_a_disk_may_be_open_nowhere(qemu: Qemu, name: str, told: bool) -> None:
    """It may be in the definition alone; it is plugged again then."""
    qemu.open(9, name, 30)
    (disk,) = qemu.disks({VolumeId("v"): Disk(DiskState.PARTIAL, "vdb", PATH)}).values()
    assert bool(disk.replaced) is told


def test_what_is_open_is_told_by_its_number_and_its_mount(qemu: Qemu) -> None:
    qemu.open(9, PATH, 30)
    qemu.open(10, "/disk (deleted)", 29, inode=6, flags="0100000")
    qemu.open(11, "/memfd:guest", 1, inode=7)
    there, lost = sorted(qemu.opens(), key=lambda file: file.inode)
    assert (there.path, there.inode, there.node, there.readonly) == (PATH, 5, 0, False)
    assert there.mount is not None
    assert there.mount.device == "0:41"
    assert (lost.path, lost.inode, lost.readonly, lost.mount) == ("/disk (deleted)", 6, True, None)
    assert qemu.opens(6) == [lost]
    assert qemu.opens(8) == []


def test_a_mount_that_the_guest_alone_sees_is_told(qemu: Qemu) -> None:
    qemu.open(9, PATH, 30)
    qemu.see(ours=ROOT, theirs=ROOT + OLD)
    (file,) = qemu.opens()
    assert file.mount is not None


def test_devices_that_are_no_disks_are_not_told(qemu: Qemu) -> None:
    qemu.open(9, "/dev/null", 30)
    assert qemu.opens() == []


def test_what_a_guest_without_a_process_has_open_is_not_told(qemu: Qemu) -> None:
    qemu.open(9, PATH, 30)
    (qemu.root / "run/web01.pid").unlink()
    assert list(qemu.opens()) == []


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ("pos:\t0\nflags:\t0100002\nmnt_id:\t30\nino:\t5\nlock:\t1: OFDLCK\n", [(5, False)]),
        ("pos:\t-1\nflags:\t0100000\nmnt_id:\t30\nino:\t5\n", [(5, True)]),
        ("pos:\t0\nflags:\t02\nmnt_id:\t30\n", []),  # before Linux 5.14
        ("pos:\t0\nflags:\t02\nmnt_id:\t30\neventfd-count:\t1\n", []),
        ("flags:\t02\n", []),
        ("", []),  # closed meanwhile
    ],
)
def test_a_file_is_told_where_the_kernel_tells_its_number(
    qemu: Qemu, facts: str, told: list[tuple[int, bool]]
) -> None:
    qemu.open(9, PATH, 30)
    (qemu.root / "7/fdinfo/9").write_text(facts)
    assert [(file.inode, file.readonly) for file in qemu.opens()] == told


def test_one_look_lists_a_process_once(qemu: Qemu, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (9, 10):
        qemu.open(number, PATH, 30)
    listed = []
    real = os.listdir
    monkeypatch.setattr(os, "listdir", lambda at: listed.append(at) or real(at))
    assert len(qemu.opens(5)) == 2
    assert qemu.opens(6) == []
    assert len(listed) == 2
