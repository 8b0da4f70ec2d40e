"""Options of a disk as libvirt's XML, there and back, and its place on SCSI controllers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from moorline.errors import Refused
from moorline.hypervisors.libvirt import scsi_place
from moorline.hypervisors.libvirt.disk_address import address_for, otherwise_limited
from moorline.hypervisors.libvirt.disk_options_xml import options_of
from moorline.hypervisors.libvirt.disk_xml import bus_of, disk_xml, is_direct
from moorline.hypervisors.libvirt.domain_xml import Domain, parse
from moorline.model import (
    BlockDevice,
    Caching,
    DiskOptions,
    ImageFile,
    NetworkDisk,
    VolumeId,
)

RAW = ImageFile(Path("/srv/a.raw"), "raw")
ONE = VolumeId("one")
FULL = DiskOptions(
    bus="virtio",
    target="vdb",
    readonly=True,
    boot=2,
    startup_policy="optional",
    on_error="stop",
    detect_zeroes="unmap",
    queues=2,
    iothread=1,
    logical_block_size=512,
    physical_block_size=4096,
    total_iops_sec=500,
    total_iops_sec_max=900,
    total_iops_sec_max_length=3,
    read_bytes_sec=1 << 20,
    size_iops_sec=4096,
)


def xml(options: DiskOptions, source: ImageFile | BlockDevice = RAW) -> str:
    bus, where = bus_of(options), options.target or "vdb"
    place = (0, 1) if bus == "scsi" else None
    return disk_xml(ONE, source, options, target=where, bus=bus, place=place, qemu=7_002_000)


@pytest.mark.parametrize(
    "options",
    [
        FULL,
        DiskOptions(bus="scsi", target="sdc", rotation_rate=1, wwn="5000c50015ea71aa"),
        DiskOptions(bus="usb", target="sdd", write_bytes_sec=5),
        DiskOptions(bus="sata", target="sde", device="cdrom", readonly=True, boot=1),
    ],
)
def test_what_is_written_is_read(options: DiskOptions) -> None:
    assert options_of(ET.fromstring(xml(options))) == options


def test_a_lun_tells_its_own_serial_and_can_be_reserved() -> None:
    device = BlockDevice(Path("/dev/x"))
    wanted = DiskOptions(target="sdb", device="lun", reservations=True)
    assert bus_of(wanted) == bus_of(DiskOptions(device="cdrom", readonly=True)) == "scsi"
    made = ET.fromstring(xml(wanted, device))
    assert options_of(made) == replace(wanted, bus="scsi")
    assert made.find("serial") is None
    assert [each.get("managed") for each in made.iterfind("source/reservations")] == ["yes"]
    address_for(domain("", ""), ONE, device, wanted)
    iscsi = NetworkDisk("iscsi", "iqn.2026-01.lab:a/1", ("a:3260",))
    address_for(domain("", ""), ONE, iscsi, DiskOptions(device="lun"))
    rbd = NetworkDisk("rbd", "vols/a")
    for source, options in ((RAW, wanted), (rbd, DiskOptions(device="lun")), (iscsi, wanted)):
        with pytest.raises(Refused, match=r"a LUN is|its target is asked"):
            address_for(domain("", ""), ONE, source, options)


def test_cache_and_io_are_as_they_are_asked_for() -> None:
    def driver(options: DiskOptions, source: ImageFile | BlockDevice = RAW) -> tuple[str, str]:
        found = ET.fromstring(xml(options, source)).find("driver")
        assert found is not None
        return found.get("cache", ""), found.get("io", "")

    device = BlockDevice(Path("/dev/x"))
    assert driver(DiskOptions(cache="writeback"), device) == ("writeback", "")
    assert driver(DiskOptions(cache="none", io="threads")) == ("none", "threads")
    assert driver(DiskOptions(io="io_uring"), device) == ("none", "io_uring")
    assert is_direct(RAW, DiskOptions(cache="directsync"), 7_002_000)
    assert not is_direct(device, DiskOptions(cache="writeback"), 7_002_000)
    for refused, source in (
        (DiskOptions(io="native"), ImageFile(Path("/a"), "raw", Caching.WRITEBACK)),
        (DiskOptions(shared=True, cache="writeback"), RAW),
    ):
        with pytest.raises(Refused, match="cache"):
            driver(refused, source)


def test_a_discard_that_is_asked_for_goes_before_the_storages() -> None:
    device = BlockDevice(Path("/dev/x"), discard=True)
    assert "discard='ignore'" in xml(DiskOptions(discard="ignore"), device).replace('"', "'")


# --- where


def domain(live: str | None, defined: str | None = "") -> Domain:
    halves = [
        None if devices is None else parse(f"<domain {id}><devices>{devices}</devices></domain>")
        for devices, id in ((live, "id='1'"), (defined, ""))
    ]
    return Domain("u", "web01", *halves)


def controller(index: int, model: str = "virtio-scsi", kind: str = "scsi") -> str:
    return f"<controller type='{kind}' index='{index}' model='{model}'/>"


def on(controller: int, unit: int) -> str:
    where = f"<address type='drive' controller='{controller}' unit='{unit}'/>"
    return f"<disk><target dev='sd{unit}' bus='scsi'/>{where}</disk>"


@pytest.mark.parametrize(
    ("live", "defined", "choice"),
    [
        (controller(0), controller(0), ((0, 0), False)),
        (controller(0) + on(0, 0), controller(0) + on(0, 1), ((0, 2), False)),
        (None, "", ((0, 0), True)),
        ("", "", ((0, 0), True)),
        (controller(0, "lsilogic"), controller(0, "lsilogic"), ((1, 0), True)),
        (controller(0) + controller(1), controller(1), ((1, 0), False)),
        (controller(0, "lsilogic") + controller(3), controller(3), ((3, 0), False)),
    ],
)
def test_a_scsi_disk_has_a_place_that_both_halves_have(
    live: str | None, defined: str, choice: tuple[tuple[int, int], bool]
) -> None:
    assert scsi_place.choose(domain(live, defined)) == choice


def test_a_full_controller_gets_a_second_one() -> None:
    full = controller(0) + "".join(on(0, unit) for unit in range(scsi_place.MAX_UNITS - 1))
    assert scsi_place.choose(domain(None, full)) == (
        (0, scsi_place.MAX_UNITS - 1),
        False,
    )
    full += on(0, scsi_place.MAX_UNITS - 1)
    assert scsi_place.choose(domain(None, full)) == ((1, 0), True)
    address = address_for(domain(None, full), ONE, RAW, DiskOptions(bus="scsi"))
    assert (address.place, address.controller) == ((1, 0), 1)


@pytest.mark.parametrize(
    ("live", "defined"), [(controller(0), ""), ("", controller(0)), (controller(0), controller(1))]
)
def test_halves_of_different_controllers_are_refused(live: str, defined: str) -> None:
    with pytest.raises(Refused, match="are not those of its definition"):
        address_for(domain(live, defined), ONE, RAW, DiskOptions(bus="scsi"))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (DiskOptions(bus="sata"), "while it runs"),
        (DiskOptions(bus="usb"), "no USB controller"),
        (DiskOptions(bus="usb", queues=2), "bus usb has no queues"),
        (DiskOptions(bus="scsi", iothread=1), "bus scsi has no iothread"),
        (DiskOptions(iothread=3), "no I/O thread 3"),
        (DiskOptions(rotation_rate=1), "bus virtio has no rotation_rate"),
        (DiskOptions(wwn="5" * 16), "bus virtio has no wwn"),
        (DiskOptions(bus="ide"), "cannot be plugged into the bus"),
        (DiskOptions(bus="sata", target="vdb"), "no name of a disk on the bus sata"),
        (DiskOptions(cache="unsafe"), "cache is none of"),
        (DiskOptions(shares=500), "have no shares"),
        (DiskOptions(device="cdrom", readonly=True, bus="virtio"), "no cdrom on the bus virtio"),
        (DiskOptions(device="cdrom", readonly=True, rotation_rate=1), "cdrom has no rotation-rate"),
        (DiskOptions(device="lun"), "a LUN is a SCSI device"),
        (DiskOptions(total_iops_sec=2**70), "total_iops_sec is not"),
    ],
)
def test_what_a_disk_cannot_have_there_is_refused(options: DiskOptions, why: str) -> None:
    usb = controller(0, "none", "usb")
    with pytest.raises(Refused, match=why):
        address_for(domain(usb, usb), ONE, RAW, options)


@pytest.mark.parametrize("half", ["live", "defined"])
def test_a_place_in_the_boot_order_is_free_or_refused(half: str) -> None:
    taken = {half: "<interface><boot order='2'/></interface>"}
    both = domain(taken.get("live", ""), taken.get("defined", ""))
    assert address_for(both, ONE, RAW, DiskOptions(boot=1)).target == "vda"
    with pytest.raises(Refused, match="<interface> of web01 is at 2 in the boot order already"):
        address_for(both, ONE, RAW, DiskOptions(boot=2))


def test_a_guest_that_boots_by_kinds_of_devices_has_no_boot_order() -> None:
    by_kind = parse("<domain><os><boot dev='hd'/></os><devices/></domain>")
    with pytest.raises(Refused, match="by kinds of devices"):
        address_for(Domain("u", "web01", None, by_kind), ONE, RAW, DiskOptions(boot=1))
    assert address_for(Domain("u", "web01", None, by_kind), ONE, RAW, DiskOptions())


def test_a_sata_disk_waits_for_the_guest_to_be_stopped() -> None:
    usb = controller(0, "qemu-xhci", "usb")
    for bus in ("sata", "usb"):
        address = address_for(domain(None, usb), ONE, RAW, DiskOptions(bus=bus))
        assert address[:3] == ("sda", bus, None)


def test_only_the_halves_of_other_limits_are_limited() -> None:
    plain, limited = xml(DiskOptions()), xml(DiskOptions(total_iops_sec=5))
    for live, defined, flags in (
        (plain, plain, {"vdb": 3}),
        (limited, plain, {"vdb": 2}),
        (plain, limited, {"vdb": 1}),
        (limited, limited, {}),
        (None, plain, {"vdb": 2}),
    ):
        assert otherwise_limited(domain(live, defined), ONE, {"total_iops_sec": 5}) == flags
    (disk,) = domain(plain, limited).disks().values()
    assert disk.limits == {(), (("total_iops_sec", 5),)}
