"""Packages (OVA) that lie, or are no packages."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.vcenter.images import SECTOR, envelope, ova, stream
from moorline.errors import Refused
from moorline.hypervisors.vsphere.provision.images import Image, inspect

MIB = 1 << 20
DISK = stream(3 * MIB, {0: b"boot", 17: b"data" * 1000})


def image(directory: Path, data: bytes, name: str = "box.ova") -> Path:
    path = directory / name
    path.write_bytes(data)
    return path


BOMB = """<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1">&b;</Envelope>"""
TWO = envelope("disk.vmdk", 1, 1).replace("</DiskSection>", "<Disk/></DiskSection>")


def package(ovf: str) -> bytes:
    return ova(DISK, capacity=0, ovf=ovf, manifest=False)


def with_member(change: Callable[[tarfile.TarInfo], None]) -> bytes:
    out = io.BytesIO(ova(DISK, capacity=3 * MIB))
    with tarfile.open(fileobj=out, mode="a", format=tarfile.USTAR_FORMAT) as tar:
        info = tarfile.TarInfo("more")
        change(info)
        tar.addfile(info)
    return out.getvalue()


def link(info: tarfile.TarInfo) -> None:
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/shadow"


def extended(info: tarfile.TarInfo) -> None:
    info.type = tarfile.XHDTYPE


def huge() -> bytes:
    info = tarfile.TarInfo("box.ovf")
    info.size = 2**80
    return info.tobuf(tarfile.GNU_FORMAT).ljust(4096, b"\0")


def without_end() -> bytes:
    whole = ova(DISK, capacity=3 * MIB, more=[("note", b"x")]).rstrip(b"\0")
    return whole.ljust(-(-len(whole) // SECTOR) * SECTOR, b"\0")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (package(BOMB), "document type"),
        (package(" " * (5 << 20)), "a description in this OVA has 5242880 bytes"),
        (package("<a"), "not XML"),
        (package("<a/>"), "not an OVF"),
        (package("\udcff"), "not UTF-8"),
        (package(TWO), "2 disks"),
        (package(envelope("absent.vmdk", 1, 1)), "has no file 'absent.vmdk'"),
        (package(envelope("/etc/shadow", 1, 1)), "has no file '/etc/shadow'"),
        (package(envelope("disk.vmdk", 5, 3 * MIB)), "its descriptor says 5"),
        (package(envelope("disk.vmdk", len(DISK), 4 * MIB)), "header says"),
        (package(envelope("disk.vmdk", len(DISK), 0).replace('"0"', '"1e9"')), "number"),
        (package(envelope("disk.vmdk", len(DISK), 1, file='ovf:compression="gzip"')), "compressed"),
        (package(envelope("disk.vmdk", len(DISK), 1, file='ovf:chunkSize="9"')), "compressed"),
        (package(envelope("disk.vmdk", len(DISK), 1, disk='ovf:parentRef="x"')), "difference"),
        (
            package(envelope("disk.vmdk", 1, 1, disk='ovf:capacityAllocationUnits="furlong"')),
            "counts its disk",
        ),
        (package(envelope("disk.vmdk", len(DISK), 1).replace("vmdk.html", "iso")), "no VMDK"),
        (ova(DISK, capacity=3 * MIB, more=[("box.ovf", b"again")]), "one twice"),
        (ova(DISK, capacity=3 * MIB, more=[("b.ovf", b"again")]), "first file"),
        (ova(DISK, capacity=3 * MIB, more=[(str(n), b"") for n in range(70)]), "too many"),
        (with_member(link), "not a plain file"),
        (with_member(extended), "not a plain file"),
        (ova(DISK, capacity=3 * MIB)[:20000], "cut short"),
        (ova(DISK, capacity=3 * MIB)[:2048], "cut short"),
        (without_end(), "cut short"),
        (huge(), "cut short"),
    ],
)
def test_a_hostile_package_is_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        inspect(image(tmp_path, data))


def test_a_disk_that_the_manifest_does_not_know_is_refused(tmp_path: Path) -> None:
    other = stream(3 * MIB, {0: b"evil", 17: b"data" * 1000})
    good = ova(DISK, capacity=3 * MIB)
    swapped = good.replace(DISK, other.ljust(len(DISK), b"\0")[: len(DISK)])
    assert swapped != good
    found: Image = inspect(image(tmp_path, swapped))
    with pytest.raises(Refused, match="manifest"):
        list(found.pieces())


@given(at=st.integers(0, 2047), value=st.integers(0, 255))
@settings(max_examples=200, deadline=None)
def test_no_change_of_a_package_does_worse_than_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, at: int, value: int
) -> None:
    changed = bytearray(ova(DISK, capacity=3 * MIB))
    changed[at] = value
    path = tmp_path_factory.getbasetemp() / "changed.ova"
    path.write_bytes(changed)
    with suppress(Refused):
        assert b"".join(inspect(path).pieces()) == DISK
