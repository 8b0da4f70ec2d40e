"""Where an image lies and what it is."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lab import standin
from moorline.errors import Refused
from tests.support.disk_images import check, make, refused, share

__all__ = ["share"]  # the fixture


# --- where it lies ---


def test_a_raw_file_is_well(share: Path) -> None:
    make(share, "a.raw", "raw")
    make(share, "sub/b.raw", "raw")
    check(share, "a.raw")
    check(share, "sub/b.raw")


@pytest.mark.parametrize(
    "name", ["", "/etc/passwd", "..", "../x", "sub/../../x", "sub//x", "./x", "sub/", "a\n", "a\0"]
)
def test_nova_defect_5_names_stay_on_their_share(share: Path, name: str) -> None:
    (share.parent / "x").write_bytes(b"outside")
    assert "not the name of a file" in refused(share, name)


@given(st.text(max_size=20) | st.text("./a-\\:", max_size=12))
@example("/etc/passwd")
def test_no_name_ever_escapes(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    share = tmp_path_factory.getbasetemp() / "escape" / "share"
    share.mkdir(parents=True, exist_ok=True)
    # All that could be opened lies outside: to accept anything is to escape.
    with pytest.raises((Refused, OSError)):
        check(share, name)


def test_what_is_missing_is_refused(share: Path) -> None:
    make(share, "a.raw", "raw")
    assert "no file none" in refused(share, "none")
    assert "no file none" in refused(share, "none/a.raw")
    assert "no file a.raw/b" in refused(share, "a.raw/b")


def test_a_share_that_is_missing_is_an_error_of_the_system(share: Path) -> None:
    with pytest.raises(FileNotFoundError):
        check(share / "none", "a.raw")


@pytest.mark.parametrize("target", ["/etc/passwd", "a.raw", "../outside", "nowhere"])
def test_symbolic_links_are_refused(share: Path, target: str) -> None:
    make(share, "a.raw", "raw")
    (share / "link").symlink_to(target)
    assert f"link is a symbolic link to {target!r}" in refused(share, "link")


def test_symbolic_links_on_the_way_are_refused(share: Path) -> None:
    make(share, "sub/a.raw", "raw")
    (share / "way").symlink_to("sub")
    assert "way is a symbolic link to 'sub'" in refused(share, "way/a.raw")


def test_a_fifo_is_refused_and_not_waited_for(share: Path) -> None:
    os.mkfifo(share / "fifo")
    assert "a FIFO" in refused(share, "fifo")


def test_other_things_are_refused(share: Path) -> None:
    assert "a directory" in refused(share, "sub")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(share / "s"))
        assert "a socket" in refused(share, "s")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_devices_and_other_file_systems_are_refused(share: Path) -> None:
    os.mknod(share / "null", 0o20666, os.makedev(1, 3))
    os.mknod(share / "disk", 0o60666, os.makedev(7, 255))
    assert "a character device" in refused(share, "null")
    assert "a block device" in refused(share, "disk")
    standin.mount("none", str(share / "sub"), "tmpfs")
    try:
        make(share, "sub/a.raw", "raw")
        assert "another file system" in refused(share, "sub/a.raw")
    finally:
        standin.umount(str(share / "sub"))


# --- what it is ---


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("qcow2", ()),
        ("qcow2", ("-o", "compat=0.10")),
        ("qcow", ()),
        ("vmdk", ()),
        ("vmdk", ("-o", "subformat=streamOptimized")),
        ("vmdk", ("-o", "subformat=monolithicFlat")),
        ("vdi", ()),
        ("vhdx", ()),
        ("vpc", ()),
        ("qed", ()),
    ],
)
def test_a_container_declared_raw_is_refused(
    share: Path, format: str, options: tuple[str, ...]
) -> None:
    make(share, "image", format, *options)
    assert "is declared raw" in refused(share, "image")


def test_a_header_that_hides_the_rest_is_still_found(share: Path) -> None:
    for magic in (b"QFI\xfb", b"vhdxfile", b"QED\0", b"conectix", b"KDMV"):
        for filler in (b"\0", b"\xff"):
            (share / "image").write_bytes((magic + filler * (2 << 20))[: 2 << 20])
            assert "is declared raw" in refused(share, "image"), (magic, filler)


@pytest.mark.parametrize("content", [b"", b"x", b"\0" * 511, b"text\n" * 1000, os.urandom(100_000)])
def test_content_that_is_nothing_is_raw(share: Path, content: bytes) -> None:
    (share / "a.raw").write_bytes(content)
    check(share, "a.raw")


def test_what_a_guest_did_to_its_raw_disk_is_raw(share: Path) -> None:
    disk = make(share, "a.raw", "raw", size="8M")
    partitions = bytearray(512)
    partitions[446:462] = struct.pack("<8BII", 0x80, 0, 2, 0, 0x83, 0, 0, 0, 1, 1000)
    partitions[510:] = b"\x55\xaa"
    with disk.open("r+b") as file:
        file.write(partitions)
    check(share, "a.raw")
    with disk.open("r+b") as file:
        file.write(b"LUKS\xba\xbe\0\1aes".ljust(592, b"\0"))
    check(share, "a.raw")
    with disk.open("r+b") as file:
        file.seek(0x8000)
        file.write(b"\x01CD001\x01")
    check(share, "a.raw")


def test_only_the_beginning_of_a_large_disk_is_read(share: Path) -> None:
    make(share, "a.raw", "raw", size="1T")
    check(share, "a.raw")  # reading it all would take hours


@pytest.mark.parametrize("content", [b"", b"QFI\xfb", b"\0" * 1000, b"KDMV" + b"\0" * 1000])
def test_what_is_not_qcow2_is_not_taken_for_it(share: Path, content: bytes) -> None:
    (share / "image").write_bytes(content)
    refused(share, "image", "qcow2")


# --- how much of it is read ---


def read_for(share: Path, name: str, format: str = "raw") -> int:
    """Bytes that are read of an image to tell what it is."""

    def bytes_read() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    check(share, name, format)  # what is imported at first use is read once
    before = bytes_read()
    check(share, name, format)
    return bytes_read() - before


@pytest.mark.parametrize("start", [b"", b"\xeb", b"VHDXFILE", b"vhdxfil", b"text\n" * 20000])
def test_no_more_is_read_than_can_tell_a_format(share: Path, start: bytes) -> None:
    """Shares are far away, and each chunk is a question to one."""
    (share / "a.raw").write_bytes(start + bytes(1 << 20))
    assert read_for(share, "a.raw") < 128 << 10


def test_what_begins_as_vhdx_is_read_as_far_as_that_takes(share: Path) -> None:
    (share / "a.raw").write_bytes(b"vhdxfile" + bytes(1 << 20))
    assert "begins as vhdx" in refused(share, "a.raw")
