"""What a qcow2 header says and refers to."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moorline.errors import Refused
from moorline.host.image import qcow2
from moorline.host.image.check import check_image
from moorline.host.image.files import MAX_CHAIN_FILES
from tests.support.disk_images import check, make, overlay, refused, share

__all__ = ["share"]  # the fixture


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("-o", "compat=0.10"),
        ("-o", "cluster_size=512"),
        ("-o", "cluster_size=2M"),
        ("-o", "extended_l2=on,cluster_size=128k"),
        ("-o", "compression_type=zstd"),
        ("-o", "lazy_refcounts=on,refcount_bits=64"),
        ("-o", "preallocation=metadata"),
    ],
)
def test_sound_qcow2_images_are_well(share: Path, options: tuple[str, ...]) -> None:
    make(share, "image", "qcow2", *options, size="100M")
    check(share, "image", "qcow2")
    overlay(share, "top", "image")
    check(share, "top", "qcow2")


def test_qcow2_with_snapshots_and_bitmaps_is_well(share: Path) -> None:
    make(share, "image", "qcow2")
    subprocess.run(["qemu-img", "snapshot", "-c", "one", share / "image"], check=True)
    subprocess.run(["qemu-img", "bitmap", "--add", share / "image", "b"], check=True)
    check(share, "image", "qcow2")


@pytest.mark.parametrize("method", [1, 2], ids=["aes", "luks"])
def test_encrypted_qcow2_is_refused_in_clear_words(share: Path, method: int) -> None:
    # To make a real LUKS header, qemu-img needs seconds of an idle machine.
    patch(make(share, "image", "qcow2"), 32, ">I", method)
    assert "encrypted" in refused(share, "image", "qcow2")


def patch(image: Path, at: int, layout: str, value: int) -> None:
    with image.open("r+b") as file:
        file.seek(at)
        file.write(struct.pack(layout, value))


@pytest.mark.parametrize(
    ("vice", "at", "layout", "value"),
    [
        ("version", 4, ">I", 1),
        ("version", 4, ">I", 4),
        ("small clusters", 20, ">I", 8),
        ("large clusters", 20, ">I", 31),
        ("absurd clusters", 20, ">I", 0xFFFFFFFF),
        ("size", 24, ">Q", 1 << 62),
        ("size", 24, ">Q", 0xFFFFFFFFFFFFFFFF),
        ("first table", 36, ">I", 0xFFFFFFFF),
        ("first table", 40, ">Q", 0x30001),
        ("first table", 40, ">Q", 0xFFFFFFFFFFFF0000),
        ("reference counts", 48, ">Q", 0),
        ("reference counts", 48, ">Q", 77),
        ("reference counts", 56, ">I", 0xFFFFFFFF),
        ("reference counts", 56, ">I", 0),
        ("snapshots", 60, ">I", 0xFFFFFFFF),
        ("snapshots", 64, ">Q", 3),
        ("corrupt", 72, ">Q", 2),
        ("data file", 72, ">Q", 4),
        ("compression", 72, ">QQQIIB", 8),
        ("unknown feature", 72, ">Q", 1 << 5),
        ("unknown feature", 72, ">Q", 1 << 63),
        ("reference count width", 96, ">I", 7),
        ("header length", 100, ">I", 0),
        ("header length", 100, ">I", 103),
        ("header length", 100, ">I", 0xFFFFFFF8),
        ("extension", 116, ">I", 0xFFFFFFFF),
    ],
)
def test_unsound_qcow2_headers_are_refused(
    share: Path, vice: str, at: int, layout: str, value: int
) -> None:
    image = make(share, "image", "qcow2")
    if vice == "compression":
        patch(image, 72, ">Q", 8)
        patch(image, 104, ">B", 9)
    else:
        patch(image, at, layout, value)
    assert refused(share, "image", "qcow2")


def test_a_dirty_image_is_well(share: Path) -> None:
    image = make(share, "image", "qcow2", "-o", "lazy_refcounts=on")
    patch(image, 72, ">Q", 1)  # as after a crash of QEMU, which mends it when it opens it
    check(share, "image", "qcow2")


# --- what it refers to ---


def test_a_chain_within_the_share_is_well(share: Path) -> None:
    make(share, "sub/base.raw", "raw")
    overlay(share, "sub/middle", "base.raw", "raw")
    overlay(share, "top", "./sub/middle")
    assert [
        (str(Path(file["path"]).relative_to(share)), file["format"])
        for file in check_image(str(share), "top", "qcow2")
    ] == [
        ("top", "qcow2"),
        ("sub/middle", "qcow2"),
        ("sub/base.raw", "raw"),
    ]


def test_an_absolute_name_within_the_share_is_well(share: Path) -> None:
    make(share, "base.raw", "raw")
    overlay(share, "top", f"{share}/base.raw", "raw")
    check(share, "top", "qcow2")


@pytest.mark.parametrize(
    "name", ["way/../disk", "sub/way/../disk", "{share}/way/../disk", "sub/../disk", "..//disk"]
)
@pytest.mark.parametrize("depth", [0, 1])
def test_names_that_go_up_are_refused(share: Path, name: str, depth: int) -> None:
    """By its letters ``way/../disk`` is ``disk``; the kernel goes up from where ``way`` leads."""
    (share.parent / "elsewhere/dir").mkdir(parents=True)
    (share.parent / "elsewhere/disk").write_bytes(bytes(4096))
    for at in (share / "way", share / "sub/way"):
        at.symlink_to(share.parent / "elsewhere/dir")
    make(share, "disk", "raw")
    make(share, "sub/disk", "raw")
    set_backing(make(share, "sub/image", "qcow2"), name.format(share=share).encode(), b"raw")
    overlay(share, "top", "sub/image")
    text = refused(share, ("sub/image", "top")[depth], "qcow2")
    assert text.startswith("the backing file of top: " if depth else "sub/image has the backing")
    assert "goes up with '..'" in text


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../outside",
        "sub/../../outside",
        "/",
        "..",
        ".",
        "{share}/../outside",
        "{share}-beside/outside",
        "json:{{}}",
        'json:{{"driver":"file","filename":"/etc/passwd"}}',
        "nbd://attacker/disk",
        "file:/etc/passwd",
        "fat:rw:/etc",
        "a:b",
        "sub",
        "none",
        "link",
        "fifo",
        "a\nb",
    ],
)
def test_nova_defect_8_backing_files_outside_are_refused(share: Path, name: str) -> None:
    (share.parent / "outside").write_bytes(bytes(4096))
    (share / "link").symlink_to("../outside")
    os.mkfifo(share / "fifo")
    image = make(share, "top", "qcow2")
    set_backing(image, name.format(share=share).encode(), b"raw")
    assert refused(share, "top", "qcow2")


def set_backing(image: Path, name: bytes, format: bytes) -> None:
    """Write a backing file into a fresh image's header, whatever qemu-img says to it."""
    data = bytearray(image.read_bytes())
    padded = format.ljust((len(format) + 7) // 8 * 8, b"\0")
    extension = struct.pack(">II", 0xE2792ACA, len(format)) + padded if format else b""
    at = 112
    data[at : at + len(extension) + 8] = extension + bytes(8)
    where = at + len(extension) + 8
    data[where : where + len(name)] = name
    struct.pack_into(">Q", data, 8, where)
    struct.pack_into(">I", data, 16, len(name))
    image.write_bytes(data)


@pytest.mark.parametrize("format", [b"", b"vmdk", b"file", b"\xff", b"raw\0"])
def test_a_backing_format_is_never_probed(share: Path, format: bytes) -> None:
    make(share, "base", "raw")
    image = make(share, "top", "qcow2")
    set_backing(image, b"base", format)
    assert "format" in refused(share, "top", "qcow2")
    set_backing(image, b"base", b"raw")
    check(share, "top", "qcow2")


def test_backing_files_pass_the_same_check(share: Path) -> None:
    make(share, "evil", "qcow2")
    overlay(share, "middle", "evil", "raw")
    overlay(share, "top", "middle")
    assert "evil is declared raw" in refused(share, "top", "qcow2")


@pytest.mark.parametrize(("at", "layout", "value"), [(8, ">Q", 1 << 40), (16, ">I", 5000)])
def test_backing_names_out_of_bounds_are_refused(
    share: Path, at: int, layout: str, value: int
) -> None:
    make(share, "base", "raw")
    image = overlay(share, "top", "base", "raw")
    patch(image, at, layout, value)
    assert "out of bounds" in refused(share, "top", "qcow2")


def test_a_chain_that_comes_back_is_refused(share: Path) -> None:
    overlay(share, "a", "b")
    overlay(share, "b", "a")
    assert "comes back" in refused(share, "a", "qcow2")


def test_a_chain_that_is_too_long_is_refused(share: Path) -> None:
    base = make(share, "0", "qcow2")
    for number in range(1, MAX_CHAIN_FILES + 1):
        shutil.copy(base, share / str(number))
        set_backing(share / str(number), str(number - 1).encode(), b"qcow2")
    check(share, str(MAX_CHAIN_FILES - 1), "qcow2")
    assert "more than" in refused(share, str(MAX_CHAIN_FILES), "qcow2")


@pytest.mark.parametrize("name", ["data.raw", "/{share}/data.raw", "{share.parent}/outside"])
@pytest.mark.parametrize("raw", ["on", "off"])
def test_external_data_files_are_refused(share: Path, name: str, raw: str) -> None:
    """QEMU opens ``data.raw`` from its working directory, not from beside the image."""
    option = f"data_file={name.format(share=share)},data_file_raw={raw}"
    make(share, "image", "qcow2", "-o", option)
    assert "keeps its data in another file" in refused(share, "image", "qcow2")
    overlay(share, "middle", "image")
    overlay(share, "top", "middle")
    text = refused(share, "top", "qcow2")
    assert text.startswith("the backing file of middle: image: ")
    assert "keeps its data in another file" in text


def test_an_error_names_the_image_and_its_backing_file(share: Path) -> None:
    overlay(share, "sub/top", "base", "raw")
    text = refused(share, "sub/top", "qcow2")
    assert text == "the backing file of sub/top: there is no file sub/base in " + str(share)
    (share / "sub/base").write_bytes(b"QFI\xfb" + bytes(600))
    assert refused(share, "sub/top", "qcow2").startswith(
        "the backing file of sub/top: sub/base is declared raw, but begins as qcow2"
    )


@pytest.fixture(scope="module")
def header(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    directory = tmp_path_factory.mktemp("header")
    make(directory, "base", "raw")
    return overlay(directory, "top", "base", "raw").read_bytes()[:1024]


Edit = tuple[int, bytes]


@settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    edits=st.lists(st.tuples(st.integers(0, 300), st.binary(min_size=1, max_size=8)), max_size=6),
    length=st.integers(0, 1024),
)
def test_any_header_parses_or_is_refused(header: bytes, edits: list[Edit], length: int) -> None:
    data = bytearray(header)
    for at, value in edits:
        data[at : at + len(value)] = value
    try:
        parsed = qcow2.parse(bytes(data[:length]))
    except Refused:
        return
    assert parsed.version in (2, 3)
    assert f"{parsed.backing}{parsed.backing_format}".isprintable()


def test_the_header_is_read_right(header: bytes) -> None:
    parsed = qcow2.parse(header)
    assert (parsed.version, parsed.size) == (3, 1 << 20)
    assert (parsed.backing, parsed.backing_format) == ("base", "raw")
