"""Values in, a <disk> out; whatever the values are, it says what they say."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from moorline.errors import Refused
from moorline.hypervisors.libvirt.disk_xml import bus_of, disk_xml, next_target, path_of
from moorline.hypervisors.libvirt.domain_xml import parse
from moorline.model import (
    BackingFile,
    BlockDevice,
    Caching,
    DiskOptions,
    DiskSource,
    Format,
    ImageFile,
    VolumeId,
)

RAW = ImageFile(Path("/srv/a.raw"), "raw")
NEW = 7_002_000

volumes = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True).map(VolumeId)
paths = st.text(min_size=1).map(lambda text: f"/{text}")


def xml(
    source: DiskSource = RAW,
    options: DiskOptions | None = None,
    volume: str = "one",
    *,
    bus: str = "virtio",
    unit: int | None = None,
    qemu: int = NEW,
) -> str:
    options = options or DiskOptions()
    target = "vdb"
    address = {"target": target, "bus": bus, "place": None if unit is None else (2, unit)}
    return disk_xml(VolumeId(volume), source, options, qemu=qemu, **address)  # type: ignore[arg-type]


def driver(source: DiskSource, qemu: int = NEW, *, shared: bool = False) -> dict[str, str]:
    found = ET.fromstring(xml(source, DiskOptions(shared=shared), qemu=qemu)).find("driver")
    assert found is not None
    return {key: found.attrib[key] for key in ("type", "cache", "io") if key in found.attrib}


@given(volume=volumes, path=paths, readonly=st.booleans())
def test_any_volume_and_path_come_through_unchanged(
    volume: VolumeId, path: str, readonly: bool
) -> None:
    source = ImageFile(Path(path), "raw")
    try:
        text = xml(source, DiskOptions(readonly=readonly), volume)
    except Refused:
        assert not path.isprintable(), "what can be printed can be a disk's path"
        return
    text.encode()  # libvirt's binding does
    (disk,) = ET.fromstring(f"<d>{text}</d>")
    tags = ["driver", "source", "backingStore", "target", "serial", "alias"]
    tags += ["readonly"] * readonly
    assert [each.tag for each in disk] == tags, "no value becomes an element"
    seen = parse(f"<domain><devices>{text}</devices></domain>").disks
    assert {v: d.source for v, d in seen.items()} == {volume: str(source.path)}
    assert disk.findtext("serial") == volume


@pytest.mark.parametrize(
    "hostile",
    [
        "'/><evil/><x a='",
        '"/><evil/><x a="',
        "]]><evil/>",
        "<!--",
        "&amp;&lt;&#0;",
        "<!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]>&e;",
        "a,file=/etc/shadow",
        "json:{}",
        "%s${x}`y`",
        "ä\u202e🙂",
    ],
)
def test_hostile_paths_stay_where_they_are(hostile: str) -> None:
    disk = ET.fromstring(xml(ImageFile(Path("/srv") / hostile, "raw")))
    source = disk.find("source")
    assert source is not None
    assert source.attrib == {"file": str(Path("/srv") / hostile)}
    assert disk.find(".//evil") is None


@pytest.mark.parametrize(
    "unfit", ["/a\nb", "/a\tb", "/a\x00b", "/a\x1b[2J", "/a\x7f", "/\udcff", "/\uffff", "a", ""]
)
def test_paths_that_libvirt_cannot_be_given_are_refused(unfit: str) -> None:
    with pytest.raises(Refused, match="cannot be given the path"):
        path_of(BlockDevice(Path(unfit)))


def test_a_file_and_a_device_are_told_apart() -> None:
    file, device = ET.fromstring(xml()), ET.fromstring(xml(BlockDevice(Path("/dev/x"))))
    assert (file.get("type"), device.get("type")) == ("file", "block")
    assert file.find("source[@file='/srv/a.raw']") is not None
    assert device.find("source[@dev='/dev/x']") is not None


@given(files=st.lists(st.tuples(paths, st.sampled_from(["raw", "qcow2"])), max_size=5))
def test_the_whole_chain_is_said_and_ends(files: list[tuple[str, Format]]) -> None:
    backing = tuple(BackingFile(Path(path), format) for path, format in files)
    source = ImageFile(Path("/srv/top"), "qcow2", backing=backing)
    try:
        level = ET.fromstring(xml(source)).find("backingStore")
    except Refused:
        assert not all(path.isprintable() for path, _ in files)
        return
    for file in backing:
        assert level is not None
        assert (level.get("type"), [each.tag for each in level]) == (
            "file",
            ["format", "source", "backingStore"],
        )
        assert level.find("format").get("type") == file.format  # type: ignore[union-attr]
        assert level.find("source").get("file") == str(file.path)  # type: ignore[union-attr]
        level = level.find("backingStore")
    assert level is not None
    assert (level.attrib, len(level)) == ({}, 0), "an empty one ends the chain: nothing is probed"


def test_a_device_has_no_chain_to_be_told() -> None:
    assert ET.fromstring(xml(BlockDevice(Path("/dev/x")))).find("backingStore") is None


def test_options_are_said() -> None:
    plain, full = (
        ET.fromstring(xml(options=options))
        for options in (DiskOptions(), DiskOptions(readonly=True, shared=True))
    )
    assert [plain.find(tag) for tag in ("readonly", "shareable")] == [None, None]
    assert all(full.find(tag) is not None for tag in ("readonly", "shareable"))


@pytest.mark.parametrize(
    ("asked", "write", "read"),
    [
        ("", None, None),
        ("stop", "stop", "stop"),
        ("report", "report", "report"),
        ("enospace", "enospace", "report"),
    ],
)
def test_what_an_error_does_is_said(asked: str, write: str | None, read: str | None) -> None:
    found = ET.fromstring(xml(options=DiskOptions(on_error=asked))).find("driver")
    assert found is not None
    assert (found.get("error_policy"), found.get("rerror_policy")) == (write, read)


def test_a_file_that_shall_keep_its_owner_says_so() -> None:
    kept = ET.fromstring(xml(ImageFile(Path("/a"), "raw", relabel=False)))
    assert kept.find("source/seclabel[@model='dac'][@relabel='no']") is not None
    assert ET.fromstring(xml()).find("source/seclabel") is None


@pytest.mark.parametrize("readonly", [False, True])
@pytest.mark.parametrize("relabel", [False, True])
def test_what_is_only_read_keeps_its_owner(readonly: bool, relabel: bool) -> None:
    """libvirt gives back only what was written to: neither these nor what lies beneath."""
    backing = tuple(BackingFile(Path(f"/{name}"), "qcow2") for name in "bc")
    image = ImageFile(Path("/a"), "qcow2", relabel=relabel, backing=backing)
    disk = ET.fromstring(xml(image, DiskOptions(readonly=readonly)))
    keeps = {
        source.get("file"): source.find("seclabel[@model='dac'][@relabel='no']") is not None
        for source in disk.iter("source")
    }
    assert keeps == {"/a": readonly or not relabel, "/b": True, "/c": True}


@pytest.mark.parametrize(("discard", "said"), [(True, "unmap"), (False, None)])
def test_a_device_takes_discards_if_its_storage_does(discard: bool, said: str | None) -> None:
    found = ET.fromstring(xml(BlockDevice(Path("/dev/x"), discard=discard))).find("driver")
    assert found is not None
    assert found.get("discard") == said


def test_a_scsi_disk_has_its_address() -> None:
    address = ET.fromstring(xml(bus="scsi", unit=7)).find("address")
    assert address is not None
    assert address.attrib == {
        "type": "drive",
        "controller": "2",
        "bus": "0",
        "target": "0",
        "unit": "7",
    }


# --- cache and I/O ------------------------------------------------------------


def image(caching: Caching, format: str = "raw") -> ImageFile:
    return ImageFile(Path("/a"), format, caching)  # type: ignore[arg-type]


NATIVE = {"type": "raw", "cache": "none", "io": "native"}


@pytest.mark.parametrize(
    ("source", "qemu", "expected"),
    [
        (image(Caching.DIRECT), 1_007_000, {"type": "raw", "cache": "writethrough"}),
        (image(Caching.DIRECT), 1_999_999, {"type": "raw", "cache": "writethrough"}),
        (image(Caching.DIRECT), 2_000_000, NATIVE),
        (image(Caching.DIRECT), 7_002_000, NATIVE),
        (image(Caching.DIRECT, "qcow2"), 7_002_000, {**NATIVE, "type": "qcow2"}),
        (image(Caching.DEFAULT), 1_007_000, {"type": "raw"}),
        (image(Caching.DEFAULT), 7_002_000, {"type": "raw"}),
        (image(Caching.WRITEBACK), 1_007_000, {"type": "raw", "cache": "writeback"}),
        (image(Caching.WRITEBACK), 7_002_000, {"type": "raw", "cache": "writeback"}),
        (BlockDevice(Path("/dev/x")), 7_002_000, NATIVE),
    ],
)
def test_the_cache_follows_the_storage_and_qemus_version(
    source: DiskSource, qemu: int, expected: dict[str, str]
) -> None:
    assert driver(source, qemu) == expected


@pytest.mark.parametrize("caching", Caching)
def test_what_several_guests_write_to_is_never_cached(caching: Caching) -> None:
    assert driver(image(caching), shared=True) == NATIVE


# --- names and places -----------------------------------------------------------


@pytest.mark.parametrize(
    ("taken", "name"),
    [
        (0, "vda"),
        (1, "vdb"),
        (25, "vdz"),
        (26, "vdaa"),
        (27, "vdab"),
        (26 + 26 * 26 - 1, "vdzz"),
        (26 + 26 * 26, "vdaaa"),
    ],
)
def test_names_go_on_after_z(taken: int, name: str) -> None:
    assert next_target("virtio", {_nth(number) for number in range(taken)}) == name


def _nth(number: int) -> str:
    """Counted another way than the product does: as libvirt's virIndexToDiskName."""
    letters = ""
    while number >= 0:
        letters = chr(ord("a") + number % 26) + letters
        number = number // 26 - 1
    return f"vd{letters}"


def test_the_first_gap_is_taken() -> None:
    assert next_target("virtio", {"vda", "vdc", "sdb"}) == "vdb"
    assert next_target("scsi", {"sda", "vdb"}) == "sdb"


@pytest.mark.parametrize(
    ("bus", "target", "chosen"),
    [
        ("", "", "virtio"),
        ("scsi", "", "scsi"),
        ("", "sdb", "scsi"),
        ("", "vdaa", "virtio"),
        ("virtio", "vdb", "virtio"),
    ],
)
def test_the_bus_follows_from_what_is_asked(bus: str, target: str, chosen: str) -> None:
    assert bus_of(DiskOptions(bus=bus, target=target)) == chosen


@pytest.mark.parametrize(
    ("bus", "target"),
    [
        *(("ide", ""), ("fdc", ""), ("sata", "vdb"), ("virtio", "sdb"), ("scsi", "vdb")),
        *(("", "hdb"), ("", "vd"), ("", "vdB"), ("", "vdb1"), ("", "vdb;x"), ("", "xvdb")),
        *(("", "vd\n"), ("", "vdb\n"), ("", "vdabcd"), ("", "../vdb")),
    ],
)
def test_what_cannot_be_plugged_is_refused(bus: str, target: str) -> None:
    with pytest.raises(Refused):
        bus_of(DiskOptions(bus=bus, target=target))


@given(text=st.text())
def test_no_target_but_a_plain_name_gets_through(text: str) -> None:
    assume(text)
    try:
        bus_of(DiskOptions(target=text))
    except Refused:
        return
    assert text.isascii()
    assert text.isalpha()
