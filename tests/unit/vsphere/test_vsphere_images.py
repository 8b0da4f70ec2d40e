"""What is taken for an image, and what is not: hostile ones above all."""

from __future__ import annotations

import io
import subprocess
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.vcenter.images import GRAIN, SECTOR, describe, envelope, ova, stream, with_grain
from moorline.errors import Failed, Refused
from moorline.hypervisors.vsphere.provision import vmdk
from moorline.hypervisors.vsphere.provision.images import inspect

MIB = 1 << 20
DISK = stream(3 * MIB, {0: b"boot", 17: b"data" * 1000})


def image(directory: Path, data: bytes, name: str = "disk.vmdk") -> Path:
    path = directory / name
    path.write_bytes(data)
    return path


def taken(path: Path) -> bytes:
    """All that is passed on of an image. Raises Refused."""
    return b"".join(inspect(path).pieces())


def sent(data: bytes) -> bytes:
    """The same, without a file; what got through before a refusal is lost."""
    return b"".join(vmdk.checked(io.BytesIO(data).read, len(data)))


# --- what is good ----------------------------------------------------------------


def test_the_size_is_the_headers_never_the_files(tmp_path: Path) -> None:
    found = inspect(image(tmp_path, DISK))
    assert (found.capacity, found.length) == (3 * MIB, len(DISK))
    assert len(DISK) < MIB // 4


def test_a_good_stream_passes_unchanged(tmp_path: Path) -> None:
    assert taken(image(tmp_path, DISK)) == DISK


@pytest.mark.parametrize("size", [MIB, 3 * MIB, 3 * MIB + 64 * 1024, 100 * MIB])
def test_what_qemu_img_writes_is_taken(tmp_path: Path, size: int) -> None:
    raw = tmp_path / "raw"
    with raw.open("wb") as file:
        for at in range(0, size, 5 * MIB // 2):
            file.seek(at)
            file.write(bytes(range(256)) * 100)
        file.truncate(size)
    out = tmp_path / "disk.vmdk"
    convert = ["qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o"]
    subprocess.run([*convert, "subformat=streamOptimized", str(raw), str(out)], check=True)
    assert inspect(out).capacity == size
    assert taken(out) == out.read_bytes()


def test_an_ova_gives_its_disk(tmp_path: Path) -> None:
    path = image(tmp_path, ova(DISK, capacity=3 * MIB), "box.ova")
    assert inspect(path).capacity == 3 * MIB
    assert taken(path) == DISK


def test_an_ova_may_count_in_other_units(tmp_path: Path) -> None:
    ovf = envelope("disk.vmdk", len(DISK), 3, disk='ovf:capacityAllocationUnits="byte * 2^20"')
    assert taken(image(tmp_path, ova(DISK, capacity=0, ovf=ovf, manifest=False))) == DISK


@pytest.mark.parametrize("maker", ["qemu-img", "ours"])
@pytest.mark.parametrize("size", [MIB - 65536, 3 * MIB + 65536, 32 * MIB + 512, 99 * MIB + 512])
def test_a_stream_can_be_rounded_up(tmp_path: Path, size: int, maker: str) -> None:
    """qemu-img reads the larger disk: the same bytes, and zeros behind them."""
    raw, path, back = tmp_path / "raw", tmp_path / "disk.vmdk", tmp_path / "back"
    data = bytearray(size)
    data[:4], data[-3:] = b"boot", b"end"
    raw.write_bytes(data)
    if maker == "ours":
        grains = {n: data[n * GRAIN : (n + 1) * GRAIN] for n in (0, (size - 1) // GRAIN)}
        path.write_bytes(stream(size, {n: bytes(grain) for n, grain in grains.items()}))
    else:
        convert = ["qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o"]
        subprocess.run([*convert, "subformat=streamOptimized", str(raw), str(path)], check=True)
    whole = -(-size // MIB) * MIB
    found = inspect(path)
    assert found.capacity == size
    if maker == "qemu-img" and size % GRAIN:
        # Its last grain is short, and what reads the larger disk would miss the rest of it.
        with pytest.raises(Refused, match="short"):
            list(found.pieces(whole))
        return
    grown = b"".join(found.pieces(whole))
    assert len(grown) == found.length
    path.write_bytes(grown)
    assert inspect(path).capacity == whole
    assert taken(path) == grown
    subprocess.run(["qemu-img", "convert", "-f", "vmdk", "-O", "raw", path, back], check=True)
    assert back.read_bytes() == bytes(data).ljust(whole, b"\0")


def test_a_stream_grows_to_the_next_mebibyte_and_no_further(tmp_path: Path) -> None:
    for size in (2 * MIB, 4 * MIB):
        with pytest.raises(ValueError, match="whole MiB"):
            list(inspect(image(tmp_path, DISK)).pieces(size))


def test_a_description_without_room_for_the_larger_number_is_refused(tmp_path: Path) -> None:
    size = 99_999 * SECTOR  # the next whole MiB has a digit more
    text = describe(99_999)
    full = text + "#".ljust(20 * SECTOR - len(text), "-")
    found = inspect(image(tmp_path, stream(size, descriptor=full)))
    assert len(b"".join(found.pieces())) == found.length
    with pytest.raises(Refused, match="no room for a larger number"):
        list(found.pieces(-(-size // MIB) * MIB))


# --- what is not an image --------------------------------------------------------


def test_there_must_be_a_file(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="there is no image"):
        inspect(tmp_path / "absent")
    with pytest.raises(Refused, match="not a regular file"):
        inspect(tmp_path)
    with pytest.raises(Failed):
        inspect(tmp_path / ("n" * 300))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a sparse VMDK"),
        (b"QFI\xfb".ljust(4096, b"\0"), "not a sparse VMDK"),
        (bytes(MIB), "not a sparse VMDK"),
        (describe(6144, extent='RW 6144 FLAT "/etc/shadow" 0').encode(), "in other files"),
        (stream(MIB, header={"flags": 1, "compression": 0}), "not stream-optimised"),
        (stream(MIB, header={"version": 4}), "version"),
        (stream(MIB, header={"capacity": 0}), "claims a disk"),
        (stream(MIB, header={"capacity": 2**63}), "claims a disk"),
        (stream(MIB, header={"grain": 2**40}), "claims grains"),
        (stream(MIB, header={"grain": 100}), "claims grains"),
        (stream(MIB, header={"compression": 7}), "compression"),
        (stream(MIB, header={"descriptor_length": 2**60}), "no description"),
        (stream(MIB, header={"descriptor_at": 0}), "no description"),
        (DISK[:73] + b"\n\n\n\n" + DISK[77:], "transfer as text"),
    ],
)
def test_refused_at_the_first_look(tmp_path: Path, data: bytes, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        inspect(image(tmp_path, data))


# --- what lies about itself ------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (describe(6144, extent='RW 6144 FLAT "/etc/shadow" 0'), "not within itself"),
        (describe(6144, extent='RW 6144 SPARSE "/etc/shadow"'), "not within itself"),
        (describe(6144, extent='RW 6144 SPARSE "../other/disk.vmdk"'), "not within itself"),
        (describe(6144, extent=r'RW 6144 SPARSE "..\disk.vmdk"'), "not within itself"),
        (describe(6144, extent="RW 6144 SPARSE"), "not within itself"),
        (describe(6144, extent='RW 6144 SPARSE "disk.vmdk" 128'), "not within itself"),
        (describe(6144, extent='RW 6144 VMFSRDM "disk.vmdk"'), "not within itself"),
        (describe(6144, extent='RW 1 SPARSE "a"\nRW 6143 SPARSE "b"'), "2 extents"),
        (describe(6144, extent=f'RW {"9" * 5000} SPARSE "a"'), "0 extents"),
        (describe(6144, extent="# none"), "0 extents"),
        (describe(6143), "its description"),
        (describe(6144, kind="monolithicFlat"), "describes itself"),
        (describe(6144).replace("=ffffffff", "=12345678"), "difference"),
        (describe(6144) + 'parentFileNameHint="/etc/shadow"\n', "difference"),
        ("\udcff", "not text"),
    ],
)
def test_a_description_names_nothing_but_the_disk(text: str, reason: str) -> None:
    lying = bytearray(DISK)
    lying[SECTOR : 21 * SECTOR] = text.encode(errors="surrogateescape").ljust(20 * SECTOR, b"\0")
    with pytest.raises(Refused, match=reason):
        sent(bytes(lying))


@pytest.mark.parametrize(
    "header", [{"overhead": 0}, {"overhead": 20}, {"overhead": 2**50}, {"directory": 2}], ids=str
)
def test_grains_begin_behind_what_describes_them(header: dict[str, int]) -> None:
    with pytest.raises(Refused, match="begin where none can"):
        sent(stream(3 * MIB, {0: b"boot"}, header=header))


def test_a_grain_that_inflates_to_more_than_a_grain_is_refused() -> None:
    bomb = zlib.compress(bytes(64 * MIB), 9)
    assert len(bomb) < 2 * GRAIN
    with pytest.raises(Refused, match="does not hold one grain"):
        sent(with_grain(stream(3 * MIB), bomb))


def test_a_grain_that_claims_much_more_than_it_may_hold_is_not_read() -> None:
    read: list[int] = []
    data = io.BytesIO(with_grain(stream(3 * MIB), bytes(40 * GRAIN)))

    def reading(count: int) -> bytes:
        read.append(count)
        return data.read(count)

    with pytest.raises(Refused, match=r"claims \d+ bytes"):
        list(vmdk.checked(reading, len(data.getbuffer())))
    assert max(read) <= GRAIN


@pytest.mark.parametrize("packed", [b"\0" * 100, zlib.compress(b""), zlib.compress(b"x" * 900)[:9]])
def test_a_damaged_grain_is_refused(packed: bytes) -> None:
    with pytest.raises(Refused, match="grain at sector 0"):
        sent(with_grain(stream(3 * MIB), packed))


def test_a_grain_outside_the_disk_is_refused() -> None:
    with pytest.raises(Refused, match="where none can be"):
        sent(stream(3 * MIB, {48: b"beyond"}))


def test_more_grains_than_the_disk_has_are_refused() -> None:
    one = stream(GRAIN, {0: b"x"})
    grain = one[GRAIN : GRAIN + SECTOR]
    with pytest.raises(Refused, match="more grains"):
        sent(one[:GRAIN] + grain * 2 + one[GRAIN + SECTOR :])


def test_what_follows_the_end_is_refused() -> None:
    assert sent(DISK + bytes(SECTOR)) == DISK + bytes(SECTOR)
    with pytest.raises(Refused, match="goes on"):
        sent(DISK + b"more".ljust(SECTOR, b"\0"))


def test_a_footer_that_contradicts_the_header_is_refused() -> None:
    footer = len(DISK) - 2 * SECTOR
    larger = bytearray(DISK)
    larger[footer + 12 : footer + 20] = (2**20).to_bytes(8, "little")
    with pytest.raises(Refused, match="contradicts"):
        sent(bytes(larger))


def test_a_stream_that_is_cut_short_never_passes_its_last_piece() -> None:
    for length in range(0, len(DISK), 100):
        passed: list[bytes] = []
        source = DISK[:length]
        with pytest.raises(Refused):
            passed.extend(vmdk.checked(io.BytesIO(source).read, length))
        assert len(b"".join(passed)) < len(DISK)


def test_a_stream_of_qemu_img_that_is_cut_between_grains_is_refused(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.write_bytes(b"ab" * MIB)
    convert = ["qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o"]
    subprocess.run([*convert, "subformat=streamOptimized", str(raw), str(out)], check=True)
    whole = out.read_bytes()
    pieces = [len(piece) for piece in inspect(out).pieces()]
    for count in range(1, 8):
        cut = whole[: sum(pieces[: -1 - count])]
        with pytest.raises(Refused):
            sent(cut)


def test_a_file_that_is_shorter_than_when_it_was_looked_at(tmp_path: Path) -> None:
    path = image(tmp_path, DISK)
    found = inspect(path)
    path.write_bytes(DISK[:-SECTOR])
    with pytest.raises(Refused, match="cut short"):
        list(found.pieces())


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_no_change_of_a_byte_does_worse_than_a_refusal(data: st.DataObject) -> None:
    changed = bytearray(DISK)
    # Nearly all that matters is in the header, the description and the markers.
    at = data.draw(st.one_of(st.integers(0, 1200), st.integers(GRAIN, len(DISK) - 1)))
    changed[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(DISK)) | st.just(len(DISK)))
    try:
        passed = sent(bytes(changed[:cut]))
    except Refused:
        return
    assert passed == changed[:cut]
    assert vmdk.parse(bytes(changed[:SECTOR])).capacity == 3 * MIB


@given(st.binary(max_size=2000))
@settings(max_examples=200, deadline=None)
def test_rubbish_after_the_magic_is_refused(rubbish: bytes) -> None:
    with pytest.raises(Refused):
        sent((vmdk.MAGIC + rubbish).ljust(SECTOR, b"\0"))
