"""What QEMU opened for a disk is compared with what was checked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from moorline.errors import Failed, Refused, Uncertain
from moorline.hypervisors.libvirt import opened_as_checked
from moorline.hypervisors.libvirt.opened_as_checked import Plug
from moorline.hypervisors.libvirt.qemu_open_files import AsChecked
from moorline.model import BlockDevice, CheckedAs, DiskSource, ImageFile
from tests.support.qemu_process import NEW, OLD, PATH, ROOT, Qemu

BASE = "/mnt/s/base"
DEVICE = os.makedev(0, 41)


@pytest.fixture
def qemu(tmp_path: Path) -> Qemu:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/web01.pid").write_text("7\n")
    return Qemu(tmp_path)


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opened_as_checked, "TAKE_AWAY_SECONDS", 0.1)
    monkeypatch.setattr(opened_as_checked, "_POLL_SECONDS", 0.01)


class Disk:
    """The guest's; it lets go when it was asked *asks* times."""

    def __init__(self, asks: int = 1) -> None:
        self.asks = asks

    def detach(self) -> None:
        self.asks -= 1
        if self.asks > 0:
            raise Failed("not yet")

    def there(self) -> bool:
        return self.asks > 0


def image(*more: CheckedAs) -> ImageFile:
    return ImageFile(Path(PATH), "qcow2", checked=(CheckedAs(Path(PATH), DEVICE, 5), *more))


def plug(qemu: Qemu, source: DiskSource | None) -> Plug:
    return Plug("web01", source, qemu.root, qemu.root / "run")


def demand(plug: Plug, disk: Disk | None = None) -> AsChecked | None:
    disk = disk or Disk()
    return plug.demand_checked(disk.detach, disk.there)


def test_what_was_checked_is_well(qemu: Qemu) -> None:
    qemu.open(8, "/firmware", 20, inode=1)
    one = plug(qemu, image(CheckedAs(Path(BASE), DEVICE, 6)))
    qemu.open(9, PATH, 30, inode=5)
    qemu.open(10, BASE, 30, inode=6)
    disk = Disk()
    demand(one, disk)
    assert disk.asks == 1


@pytest.mark.parametrize(
    ("name", "theirs", "told"),
    [
        (PATH, ROOT + OLD, AsChecked(PATH)),
        ("/mnt/s/renamed", ROOT + OLD, None),
        (f"{PATH} (deleted)", ROOT + OLD, None),
        (PATH, ROOT, None),
    ],
)
def test_it_is_told_of_a_file_that_is_open_by_its_name_on_a_mount_that_is_seen(
    qemu: Qemu, name: str, theirs: str, told: AsChecked | None
) -> None:
    one = plug(qemu, image())
    qemu.see(ours=theirs, theirs=theirs)
    qemu.open(9, name, 30, inode=5)
    assert demand(one) == told


@pytest.mark.parametrize(("mount", "inode"), [(20, 5), (30, 7)])
def test_another_file_is_taken_away(qemu: Qemu, mount: int, inode: int) -> None:
    """Of another file system with the same number, too."""
    one, disk = plug(qemu, image()), Disk(asks=3)
    qemu.open(9, "/secret", mount, inode=inode)
    with pytest.raises(Refused, match=f"web01 opened /secret, and not {PATH}"):
        demand(one, disk)
    assert disk.asks == 0


def test_a_file_that_is_qemus_and_of_which_nobody_noted_whose_it_was_is_told(
    qemu: Qemu, tmp_path: Path
) -> None:
    """libvirt noted the owner of another file: the path led to that an instant before."""
    one, secret = plug(qemu, image()), tmp_path / "secret"
    secret.touch()
    qemu.open(9, str(secret), 20, inode=7)
    with pytest.raises(Refused, match=rf"\({secret} belongs to QEMU's user, and nothing tells"):
        demand(one)


def test_another_file_beneath_is_taken_away_though_an_older_disk_has_the_right_one(
    qemu: Qemu,
) -> None:
    qemu.open(8, BASE, 30, inode=6)
    one = plug(qemu, image(CheckedAs(Path(BASE), DEVICE, 6)))
    qemu.open(9, PATH, 30, inode=5)
    qemu.open(10, "/secret", 20, inode=7)
    with pytest.raises(Refused, match="opened /secret"):
        demand(one)


def test_a_guest_that_does_not_let_go_is_uncertain(qemu: Qemu) -> None:
    one = plug(qemu, image())
    qemu.open(9, "/secret", 20, inode=7)
    with pytest.raises(Uncertain, match="has not done so yet"):
        demand(one, Disk(asks=10**6))


@pytest.mark.parametrize(
    "source", [None, BlockDevice(Path("/dev/x")), ImageFile(Path("/a"), "raw")]
)
def test_what_was_not_checked_by_its_number_is_not_compared(
    qemu: Qemu, source: DiskSource | None
) -> None:
    one = plug(qemu, source)
    qemu.open(9, "/secret", 20, inode=7)
    demand(one)


def test_where_nothing_new_is_seen_nothing_is_told(qemu: Qemu) -> None:
    """Who is not root, or asks another daemon than libvirt's, sees no descriptors."""
    qemu.open(9, "/another", 20, inode=7)
    demand(plug(qemu, image()))
    (qemu.root / "run/web01.pid").unlink()
    one = plug(qemu, image())
    qemu.open(10, "/yet-another", 20, inode=8)
    demand(one)


def test_a_file_of_a_mount_that_is_not_seen_is_known_by_its_number(qemu: Qemu) -> None:
    one = plug(qemu, image())
    qemu.see(ours=ROOT + NEW, theirs=ROOT + NEW)
    qemu.open(9, "/disk", 30, inode=5)
    demand(one)
    assert OLD not in (qemu.root / "7/mountinfo").read_text()


@pytest.mark.parametrize(("name", "well"), [(PATH, True), ("/mnt/s/another", False)])
def test_a_file_system_with_two_numbers_for_a_file_is_known_by_the_name(
    qemu: Qemu, name: str, well: bool
) -> None:
    table = ROOT + OLD.replace("fuse.quobyte", "overlay")
    qemu.see(ours=table, theirs=table)
    one, disk = plug(qemu, image()), Disk()
    qemu.open(9, name, 30, inode=99)
    if well:
        demand(one, disk)
    else:
        with pytest.raises(Refused):
            demand(one, disk)
