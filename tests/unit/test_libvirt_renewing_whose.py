"""A disk is given anew only what is its own: no other path or format, and none that it has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moorline.errors import Failed, Refused
from moorline.hypervisors.libvirt.renewing import LibvirtDiskRenewal
from moorline.model import CheckedAs, GuestId, ImageFile, VolumeId
from tests.support.fake_qemu import DEAD_MOUNT, INODE, MOUNT, PATH, VOLUME, FakeQemu

GUEST, OURS = GuestId("u"), VolumeId(VOLUME)
SOURCE = ImageFile(Path(PATH), "raw", checked=(CheckedAs(Path(PATH), 51, INODE, 1.0),))


@pytest.fixture
def qemu(tmp_path: Path) -> FakeQemu:
    return FakeQemu(tmp_path)


@pytest.fixture
def disks(qemu: FakeQemu) -> LibvirtDiskRenewal:
    connection: Any = qemu
    return LibvirtDiskRenewal(connection, connection, qemu.root, qemu.root, qemu.say)


@pytest.mark.parametrize(
    "source", [replace(SOURCE, path=Path("/mnt/share/other")), replace(SOURCE, format="qcow2")]
)
def test_another_file_or_format_is_not_given(
    qemu: FakeQemu, disks: LibvirtDiskRenewal, source: ImageFile
) -> None:
    with pytest.raises(Refused, match=f"has {PATH} .raw. as vdb"):
        disks.renew(GUEST, OURS, source, lambda: None)
    assert qemu.said == []


def test_a_disk_that_is_not_there_is_not_given_anew(
    qemu: FakeQemu, disks: LibvirtDiskRenewal
) -> None:
    other = VolumeId("another")
    disks.foresee(GUEST, other)
    disks.renew(GUEST, other, SOURCE, lambda: None)
    assert disks.lost_file(GUEST, other) is None
    assert qemu.said == []


def test_a_disk_that_has_its_file_again_has_lost_none(
    qemu: FakeQemu, disks: LibvirtDiskRenewal
) -> None:
    """Though QEMU has the old one open, too, for a while."""
    assert disks.lost_file(GUEST, OURS) == INODE
    qemu.elsewhere = [(PATH, MOUNT, INODE)]
    assert disks.lost_file(GUEST, OURS) is None


def test_a_disk_whose_file_is_not_seen_may_have_lost_it(
    qemu: FakeQemu, disks: LibvirtDiskRenewal
) -> None:
    """Who takes it for one that lost nothing lets its guest go on, and forgets the death."""
    qemu.nodes["libvirt-2-storage"]["fd"] = ("/renamed", DEAD_MOUNT, INODE)
    with pytest.raises(Refused, match="which file"):
        disks.lost_file(GUEST, OURS)


def test_a_file_of_a_mount_that_another_covers_is_neither_lost_nor_that_of_the_new_one(
    tmp_path: Path,
) -> None:
    """Its name is the very path. Nobody saw its client gone, which may live: nothing is done."""
    qemu = FakeQemu(tmp_path, covers=True)
    qemu.nodes["libvirt-2-storage"]["fd"] = (PATH, DEAD_MOUNT, INODE)
    connection: Any = qemu
    disks = LibvirtDiskRenewal(connection, connection, qemu.root, qemu.root, qemu.say)
    with pytest.raises(Refused, match="which file"):
        disks.lost_file(GUEST, OURS)
    with pytest.raises(Refused, match="not the file open"):
        disks.renew(GUEST, OURS, SOURCE, lambda: None)
    assert qemu.said == []


def test_a_monitor_that_does_not_do_what_it_says_is_not_asked_for_ever(
    qemu: FakeQemu, disks: LibvirtDiskRenewal
) -> None:
    qemu.idle = True
    with pytest.raises(Failed, match="does not come to have"):
        disks.renew(GUEST, OURS, SOURCE, lambda: None)
    assert len(qemu.said) < 20


def test_the_io_thread_of_a_controller_is_no_matter_to_a_disk_that_is_not_on_it(
    tmp_path: Path,
) -> None:
    threaded = "<controller type='scsi' index='0'><driver iothread='1'/></controller>"
    at = "<address type='pci' domain='0x0000' bus='0x05' slot='0x00' function='0x0'/>"
    qemu = FakeQemu(tmp_path, xml={"more": at, "disks": threaded})
    connection: Any = qemu
    disks = LibvirtDiskRenewal(connection, connection, qemu.root, qemu.root, qemu.say)
    assert disks.lost_file(GUEST, OURS) == INODE


def test_a_guest_that_is_paused_by_an_error_already_is_foreseen_to_go_on(
    disks: LibvirtDiskRenewal, qemu: FakeQemu
) -> None:
    assert qemu.condition == (3, 5)
    disks.foresee(GUEST, OURS)


def test_a_drive_without_a_disc_keeps_no_guest_paused(tmp_path: Path) -> None:
    drive = "<disk type='file' device='cdrom'><target dev='sda' bus='sata'/></disk>"
    qemu = FakeQemu(tmp_path, xml={"disks": drive})
    connection: Any = qemu
    disks = LibvirtDiskRenewal(connection, connection, qemu.root, qemu.root, qemu.say)
    disks.renew(GUEST, OURS, SOURCE, lambda: None)
    disks.resume(GUEST, lambda: None)
    assert qemu.condition == (1, 1)
