"""Of block devices that lie on one another only one is given to a guest that writes to it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from moorline.core.same_file import same_file
from moorline.host.image.files import lower_devices
from moorline.ports import FileId
from moorline.ports.mount import MountsByPath

SDA, SDA1, SDA2, SDB, MD, LV1, LV2 = (
    os.makedev(*numbers)
    for numbers in ((8, 0), (8, 1), (8, 2), (8, 16), (9, 0), (252, 1), (252, 2))
)
NAMES = {
    SDA: "sda",
    SDA1: "sda/sda1",
    SDA2: "sda/sda2",
    SDB: "sdb",
    MD: "md0",
    LV1: "dm-1",
    LV2: "dm-2",
}
MADE_OF = {MD: (SDA2, SDB), LV1: (MD,), LV2: (MD,)}


@pytest.fixture
def sys(tmp_path: Path) -> Path:
    """Two disks; a RAID of one and of a partition of the other; two logical volumes on that."""
    (tmp_path / "dev/block").mkdir(parents=True)
    for node, name in NAMES.items():
        at = tmp_path / "devices/block" / name
        (at / "slaves").mkdir(parents=True)
        number = f"{os.major(node)}:{os.minor(node)}"
        (at / "dev").write_text(f"{number}\n")
        (tmp_path / "dev/block" / number).symlink_to(at)
        if "/" in name:
            (at / "partition").write_text("1\n")
        for slave in MADE_OF.get(node, ()):
            target = tmp_path / "devices/block" / NAMES[slave]
            (at / "slaves" / target.name).symlink_to(target)
    return tmp_path


def test_down_to_the_disks(sys: Path) -> None:
    told = {node: lower_devices(node, str(sys)) for node in NAMES}
    assert (told[SDA], told[SDB], told[SDA1]) == (set(), set(), {SDA})
    assert told[MD] == {SDA, SDA2, SDB}
    assert told[LV1] == told[LV2] == {MD, SDA, SDA2, SDB}
    assert lower_devices(os.makedev(8, 99), str(sys)) == set()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (SDA, SDA, True),
        (SDA, SDA1, True),
        (SDA, LV1, True),
        (SDB, MD, True),
        (MD, LV2, True),
        (SDA1, SDA2, False),
        (LV1, LV2, False),
        (SDA1, LV1, False),
        (SDA, SDB, False),
    ],
)
def test_what_is_a_part_of_another_is_that_as_well(
    sys: Path, one: int, other: int, same: bool
) -> None:
    table = MountsByPath([])
    a, b = (
        FileId(f"/dev/{NAMES[node]}", 5, node, node, 0, tuple(lower_devices(node, str(sys))))
        for node in (one, other)
    )
    assert same_file(a, b, table) is same
    assert same_file(b, a, table) is same
    assert not same_file(a, FileId("/file", 5, one), table)
