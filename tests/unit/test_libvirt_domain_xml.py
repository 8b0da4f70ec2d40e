"""A domain's XML in, values out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moorline.hypervisors.libvirt.domain_xml import Domain, Half, MarkedDisk, parse
from moorline.model import Disk, DiskState, Use, VolumeId

ONE, TWO = VolumeId("one"), VolumeId("two")


def half(devices: str = "", *, running: bool = True, outside: str = "") -> Half:
    id = "id='7'" if running else ""
    return parse(
        f"<domain type='kvm' {id}><name>web01</name>{outside}<devices>{devices}</devices></domain>"
    )


def disk(
    target: str,
    alias: str = "",
    source: str = "<source file='/srv/a.raw'/>",
    *,
    bus: str = "virtio",
    address: str = "",
    serial: str | None = None,
    device: str = "disk",
) -> str:
    """With an alias of somebody's own choice it has its serial too, unless another is given."""
    named = f"<alias name='{alias}'/>" if alias else ""
    serial = alias.removeprefix("ua-") if serial is None else serial
    named += f"<serial>{serial}</serial>" if serial else ""
    target = f"<target dev='{target}' bus='{bus}'/>"
    return f"<disk device='{device}'>{source}{target}{named}{address}</disk>"


def drive(controller: int, unit: int) -> str:
    return f"<address type='drive' controller='{controller}' bus='0' target='0' unit='{unit}'/>"


def pci(bus: int, slot: int, function: int = 0) -> str:
    return f"<address type='pci' bus='0x{bus:02x}' slot='0x{slot:02x}' function='0x{function}'/>"


def controller(index: int, model: str, more: str = "") -> str:
    return f"<controller type='pci' index='{index}' model='{model}'>{more}</controller>"


def scsi(index: int, model: str = "virtio-scsi") -> str:
    return f"<controller type='scsi' index='{index}' model='{model}'/>"


BARE = MarkedDisk("", "", "", None)

# --- disks ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("devices", "marked"),
    [
        ("", {}),
        (disk("vda"), {}),
        (disk("vda", "virtio-disk0"), {}),
        (disk("vda", "ua"), {}),
        (disk("vdb", "ua-one"), {ONE: MarkedDisk("vdb", "virtio", "/srv/a.raw", None)}),
        (
            disk("vdb", "ua-one", "<source dev='/dev/x'/>"),
            {ONE: MarkedDisk("vdb", "virtio", "/dev/x", None)},
        ),
        (
            disk("vdb", "ua-one", "<source protocol='rbd' name='pool/image'/>"),
            {ONE: MarkedDisk("vdb", "virtio", "rbd:pool/image", None)},
        ),
        (disk("sdc", "ua-one", "", bus="sata"), {ONE: MarkedDisk("sdc", "sata", "", None)}),
        ("<disk><alias name='ua-one'/></disk>", {}),
        ("<disk><alias name='ua-one'/><serial>one</serial></disk>", {ONE: BARE}),
        ("<disk device='lun'><alias name='ua-one'/></disk>", {ONE: BARE}),
        (disk("vda", "ua-one", serial=""), {}),
        (disk("vda", "ua-one", serial="two"), {}),
        (disk("vda", "", serial="one"), {}),
        (disk("vda", "ua-"), {}),
        (
            disk("sda", "ua-one", bus="sata", device="cdrom"),
            {ONE: MarkedDisk("sda", "sata", "/srv/a.raw", None)},
        ),
        (disk("sda", "ua-one", serial="two", device="cdrom"), {}),
        (disk("fda", "ua-one", device="floppy"), {}),
        (disk("sda", "ua-one", device="lun", serial="two"), {}),
        (
            scsi(1) + disk("sdc", "ua-one", bus="scsi", address=drive(1, 5)),
            {ONE: MarkedDisk("sdc", "scsi", "/srv/a.raw", (1, 5))},
        ),
        ("<interface><alias name='ua-one'/></interface>", {}),
    ],
)
def test_disks_are_ours_by_their_mark(devices: str, marked: dict[VolumeId, MarkedDisk]) -> None:
    assert half(devices).disks == marked


def test_all_targets_are_taken_whoever_has_them() -> None:
    seen = half(disk("vda") + disk("sdb", "ua-one", bus="scsi") + disk("hda", bus="ide"))
    assert seen.targets == {"vda", "sdb", "hda"}


@pytest.mark.parametrize(
    ("devices", "indices"),
    [
        ("", set()),
        (scsi(0), {0}),
        (scsi(3) + scsi(2), {2, 3}),
        (scsi(0, "lsilogic"), set()),
        (scsi(0, "lsilogic") + scsi(1), {1}),
        ("<controller type='sata' index='0' model='virtio-scsi'/>", set()),
    ],
)
def test_the_scsi_controllers_are_those_that_take_hot_plugs(
    devices: str, indices: set[int]
) -> None:
    assert half(devices).virtio_scsi == indices


def test_units_are_taken_by_whatever_is_on_the_controller() -> None:
    seen = half(
        scsi(1)
        + disk("sda", bus="scsi", address=drive(1, 0))
        + disk("sdb", bus="scsi", address=drive(2, 1))
        + disk("sdc", bus="sata", address=drive(1, 2))
        + f"<hostdev type='scsi'><source>{drive(1, 9)}</source>{drive(1, 3)}</hostdev>"
    )
    assert seen.scsi_places == {(1, 0), (2, 1), (1, 3)}


# --- halves -----------------------------------------------------------------

WITH = disk("vdb", "ua-one")
USE = Use("/srv/a.raw", "raw", volume=ONE)
UNLIMITED = frozenset({()})
WHOLE = Disk(DiskState.WHOLE, "vdb", "/srv/a.raw", frozenset({USE}), limits=UNLIMITED)
PARTIAL = replace(WHOLE, state=DiskState.PARTIAL)


@pytest.mark.parametrize(
    ("live", "defined", "saved", "seen"),
    [
        (WITH, WITH, None, WHOLE),
        (WITH, "", None, PARTIAL),
        ("", WITH, None, PARTIAL),
        ("", "", None, None),
        (WITH, None, None, WHOLE),
        (None, WITH, None, WHOLE),
        (None, WITH, WITH, WHOLE),
        (None, WITH, "", WHOLE),
        (None, "", WITH, replace(PARTIAL, limits=frozenset())),
        (None, "", "", None),
    ],
)
def test_a_disk_is_whole_if_every_half_has_it(
    live: str | None, defined: str | None, saved: str | None, seen: Disk | None
) -> None:
    domain = Domain(
        "uuid", "web01", *(None if x is None else half(x) for x in (live, defined, saved))
    )
    assert domain.disks() == ({ONE: seen} if seen else {})


def test_paths_are_those_of_all_definitions() -> None:
    def at(path: str) -> Half:
        return half(disk("vda", source=f"<source file='{path}'/>"))

    assert Domain("u", "n", at("/live"), at("/defined")).paths() == {"/live", "/defined"}
    assert Domain("u", "n", None, at("/defined"), at("/saved")).paths() == {"/defined", "/saved"}


def test_what_runs_and_what_it_is_called() -> None:
    assert half(running=True).running
    assert not half(running=False).running
    assert half().name == "web01"


# --- paths --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("xml", "path"),
    [
        ("<kernel>/boot/vmlinuz</kernel>", "/boot/vmlinuz"),
        ("<nvram template='/a/b'>/c/d</nvram>", "/c/d"),
        ("<loader>\n  /mnt/x/OVMF.fd\n</loader>", "/mnt/x/OVMF.fd"),
        ("<x file='//mnt//share/../share/x.raw'/>", "/mnt/share/x.raw"),
        ("<x file='/mnt/my share/a,b=c.raw'/>", "/mnt/my share/a,b=c.raw"),
        ("<arg value='file=/mnt/share/x.raw,if=virtio'/>", "/mnt/share/x.raw"),
        ("<arg value='file=/mnt/my share/x.raw,if=virtio'/>", "/mnt/my share/x.raw,if=virtio"),
        ('<arg value=\'{"filename":"/mnt/share/x.raw","y":"/z"}\'/>', "/mnt/share/x.raw"),
        ('<arg value=\'{"filename":"/mnt/share/x.raw","y":"/z"}\'/>', "/z"),
        ("<arg value='file:/mnt/share/x.raw'/>", "/mnt/share/x.raw"),
        ("<backingStore><source file='/base.raw'/></backingStore>", "/base.raw"),
    ],
)
def test_every_path_counts_wherever_it_stands(xml: str, path: str) -> None:
    assert path in half(outside=xml).paths


def test_what_is_no_absolute_path_is_none() -> None:
    xml = "<a b='pool/image'/><c>../d</c><type>application/x</type><e f='1/2'/>"
    assert half(outside=xml).paths == set()


def test_a_disk_has_one_path_whatever_it_is_called() -> None:
    """Else the volume's own disk would be taken for another user of its link."""
    source = "<source file='/mnt/share/a,b c:/d e.raw'/>"
    assert half(disk("vda", source=source)).paths == {"/mnt/share/a,b c:/d e.raw"}


# --- places for hot-plugged devices --------------------------------------------

ROOT = controller(0, "pcie-root")


@pytest.mark.parametrize(
    ("devices", "ports"),
    [
        ("", None),
        ("<controller type='usb' index='0' model='none'/>", None),
        (ROOT, (0, 0)),
        (ROOT + controller(1, "pcie-root-port") + controller(2, "pcie-root-port"), (2, 2)),
        (
            ROOT
            + controller(1, "pcie-root-port", pci(0, 1))
            + controller(2, "pcie-root-port", pci(0, 1, 1))
            + f"<interface>{pci(1, 0)}</interface>",
            (1, 2),
        ),
        (ROOT + controller(1, "pcie-root-port", "<target hotplug='off'/>"), (0, 0)),
        (ROOT + controller(1, "pcie-root-port", "<target hotplug='on'/>"), (1, 1)),
        (
            ROOT + controller(16, "pcie-root-port") + f"<disk>{pci(16, 0)}</disk>",
            (0, 1),
        ),
        (
            ROOT + controller(1, "pcie-root-port") + f"<disk>{pci(1, 0)}</disk>" * 2,
            (0, 1),
        ),
        (ROOT + controller(1, "dmi-to-pci-bridge"), (0, 0)),
        (ROOT + controller(1, "pcie-to-pci-bridge"), (0, 0)),
        (ROOT + controller(1, "dmi-to-pci-bridge") + controller(2, "pci-bridge"), (0, 0)),
        (ROOT + controller(1, "pcie-root-port") + controller(2, "pcie-to-pci-bridge"), (1, 1)),
        (controller(0, "pci-root"), (30, 31)),
        (
            controller(0, "pci-root")
            + f"<controller type='usb' index='0'>{pci(0, 1, 2)}</controller>"
            + f"<video>{pci(0, 2)}</video><disk>{pci(0, 3)}</disk>",
            (28, 31),
        ),
        (
            controller(0, "pci-root")
            + controller(1, "pci-bridge", pci(0, 5))
            + f"<disk>{pci(1, 1)}</disk>",
            (29 + 30, 62),
        ),
    ],
)
def test_free_places_are_counted(devices: str, ports: tuple[int, int] | None) -> None:
    assert half(devices).hotplug_ports == ports


def chain(*files: str) -> str:
    """What libvirt prints of the files beneath a disk's source."""
    inner = "<backingStore/>"
    for file in reversed(files):
        inner = f"<backingStore type='file'><source file='{file}'/>{inner}</backingStore>"
    return inner


@pytest.mark.parametrize(
    ("format", "beneath", "told"),
    [
        ("raw", "", ()),
        ("qcow2", "", None),
        ("qcow2", chain(), ()),
        ("qcow2", chain("/b"), ("/b",)),
        ("qcow2", chain("/b", "/c"), ("/b", "/c")),
    ],
)
def test_what_is_beneath_a_disk_is_read_where_it_is_told(
    format: str, beneath: str, told: tuple[str, ...] | None
) -> None:
    source = f"<driver type='{format}'/><source file='/a'/>{beneath}"
    domain = Domain("uuid", "n", half(disk("vdb", "ua-one", source)), None)
    assert domain.disks()[ONE].beneath == told
