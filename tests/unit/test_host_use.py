"""What the host itself does with its block devices, told by trees that stand for /sys and /proc."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from moorline.backends.host_use import HostUse
from moorline.errors import Refused
from moorline.ports import Mount

SDA, SDA1, SDA2, SDB = (8 << 8 | minor for minor in (0, 1, 2, 16))
NAMES = {SDA: "sda", SDA1: "sda/sda1", SDA2: "sda/sda2", SDB: "sdb"}


class Kernel:
    """Two disks, of which the first has two partitions."""

    def __init__(self, root: Path) -> None:
        self.sys, self.swaps = root / "sys", root / "swaps"
        self.swaps.write_text("Filename\tType\tSize\tUsed\tPriority\n")
        (self.sys / "dev/block").mkdir(parents=True)
        for number, name in NAMES.items():
            at = self.at(number)
            (at / "holders").mkdir(parents=True)
            (at / "dev").write_text(f"{number >> 8}:{number & 255}\n")
            (self.sys / f"dev/block/{number >> 8}:{number & 255}").symlink_to(at)
            if "/" in name:
                (at / "partition").write_text("1\n")

    def at(self, number: int) -> Path:
        return self.sys / "devices/pci/block" / NAMES[number]

    def says(self, number: int, mounts: Sequence[Mount] = ()) -> str:
        try:
            HostUse(self.sys, self.swaps).demand_free_device(Path("/dev/x"), number, mounts)
        except Refused as e:
            return e.message
        return ""

    def hold(self, number: int, holder: str) -> None:
        (self.at(number) / "holders" / holder).mkdir()


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(tmp_path)


def mounted(device: str, target: str) -> Mount:
    return Mount(1, "/dev/whatever", target, "ext4", device, shared=True)


def test_what_nobody_uses_is_free(kernel: Kernel) -> None:
    others = [mounted("0:45", "/srv"), mounted("18:1", "/opt")]
    assert [kernel.says(number, others) for number in (*NAMES, 0)] == [""] * 5


def test_a_mounted_device_is_in_use_with_the_disk_that_it_is_part_of(kernel: Kernel) -> None:
    table = [mounted("8:1", "/srv/a b")]
    assert kernel.says(SDA1, table) == "/dev/x is in use by this host: mounted at /srv/a b"
    assert kernel.says(SDA, table) == "/dev/x is in use by this host: sda1, mounted at /srv/a b"
    assert kernel.says(SDA2, table) == ""
    assert kernel.says(SDB, table) == ""


def test_a_disk_that_is_mounted_as_a_whole_has_no_free_partition(kernel: Kernel) -> None:
    table = [mounted("8:0", "/srv")]
    assert "sda, mounted at /srv" in kernel.says(SDA1, table)
    assert "mounted at /srv" in kernel.says(SDA, table)


def test_what_is_made_of_a_device_holds_it(kernel: Kernel) -> None:
    kernel.hold(SDA1, "dm-3")
    (kernel.at(SDA1) / "holders/dm-3/dm").mkdir()
    (kernel.at(SDA1) / "holders/dm-3/dm/name").write_text("vg0-root\n")
    kernel.hold(SDB, "md0")
    assert "held by dm-3 vg0-root" in kernel.says(SDA1)
    assert "sda1, held by dm-3 vg0-root" in kernel.says(SDA)
    assert "held by md0" in kernel.says(SDB)
    assert kernel.says(SDA2) == ""


def test_a_multipath_device_above_a_disk_holds_its_partitions_too(kernel: Kernel) -> None:
    kernel.hold(SDA, "dm-0")
    assert "sda, held by dm-0" in kernel.says(SDA2)


def test_each_member_of_a_btrfs_is_in_use(kernel: Kernel) -> None:
    for name in ("sda2", "sdb"):
        (kernel.sys / f"fs/btrfs/0f1e/devices/{name}").mkdir(parents=True)
    assert "btrfs" in kernel.says(SDA2)
    assert "btrfs" in kernel.says(SDB)
    assert kernel.says(SDA1) == ""


def test_swap_is_in_use(kernel: Kernel) -> None:
    device = next((p for p in Path("/dev").iterdir() if p.is_block_device()), None)
    if device is None:
        pytest.skip("there is no block device on this machine")
    number = device.stat().st_rdev
    name = f"{number >> 8 & 0xFFF}:{number & 255}"
    (kernel.sys / f"devices/{device.name}").mkdir()
    (kernel.sys / f"devices/{device.name}/dev").write_text(f"{name}\n")
    if not (link := kernel.sys / f"dev/block/{name}").exists():
        link.symlink_to(kernel.sys / f"devices/{device.name}")
    kernel.swaps.write_text(f"Filename\tType\n{device}  partition 8 0 -2\n")
    assert "used as swap" in kernel.says(number)


def test_a_file_that_is_swap_or_a_loop_device_is_in_use(kernel: Kernel) -> None:
    use = HostUse(kernel.sys, kernel.swaps)
    use.demand_free_file(Path("/srv/my swap"))
    kernel.swaps.write_text("Filename\tType\n/srv/my\\040swap file 8 0 -2\n")
    with pytest.raises(Refused, match="swaps to it"):
        use.demand_free_file(Path("/srv/my swap"))
    use.demand_free_file(Path("/srv/my"))
    (kernel.sys / "block/loop4/loop").mkdir(parents=True)
    (kernel.sys / "block/loop4/loop/backing_file").write_text("/srv/disk.raw\n")
    with pytest.raises(Refused, match="the loop device /dev/loop4"):
        use.demand_free_file(Path("/srv/disk.raw"))
    use.demand_free_file(Path("/srv/disk"))


def test_a_kernel_that_tells_nothing_stops_nobody(tmp_path: Path) -> None:
    HostUse(tmp_path, tmp_path / "none").demand_free_device(Path("/dev/x"), SDA, [])
    HostUse(tmp_path, tmp_path / "none").demand_free_file(Path("/x"))
