"""ploop images: what their descriptors may name."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from lab.virtuozzo.ploop import BASE, DESCRIPTOR, create, describe
from moorline.errors import Refused
from moorline.host.image import ploop
from tests.support.disk_images import check, make, refused, share

__all__ = ["share"]  # the fixture


@pytest.fixture
def image(share: Path) -> Path:
    directory = share / "disk"
    create(directory, 1 << 20)
    return directory


def test_an_image_is_a_directory_with_a_descriptor(share: Path, image: Path) -> None:
    check(share, "disk", "ploop")
    describe(image, str(image / BASE))  # it may be told by its path
    check(share, "disk", "ploop")
    make(share, "a.raw", "raw")
    assert "not a directory" in refused(share, "a.raw", "ploop")
    assert "no file sub/DiskDescriptor.xml" in refused(share, "sub", "ploop")


@pytest.mark.parametrize(
    "file",
    [
        "/etc/shadow",
        "../other/root.hds",
        "sub/../../a.raw",
        "way/../root.hds",
        "{image}/way/../root.hds",
        "{image}/../a.raw",
        "{image}",
        "..",
        ".",
        "nbd://h/x",
        "gone",
    ],
)
def test_a_descriptor_that_names_a_file_elsewhere_is_refused(
    share: Path, image: Path, file: str
) -> None:
    """The kernel opens, as root, whatever the descriptor names: CVE-2022-47951 by another name."""
    make(share, "a.raw", "raw")
    create(share / "other", 1 << 20)
    (image / "way").symlink_to(share / "other")  # by its letters, way/.. is the image itself
    describe(image, BASE, file.format(image=image))
    refused(share, "disk", "ploop")


@pytest.mark.parametrize("what", ["symlink", "directory", "FIFO", "qcow2"])
def test_a_file_that_is_not_the_disk_itself_is_refused(share: Path, image: Path, what: str) -> None:
    file = image / BASE
    file.unlink()
    if what == "symlink":
        file.symlink_to("/etc/shadow")
    elif what == "directory":
        file.mkdir()
    elif what == "FIFO":
        os.mkfifo(file)
    else:  # newer ploop would take it, with its backing file
        subprocess.run(["qemu-img", "create", "-qf", "qcow2", file, "1M"], check=True)
    refused(share, "disk", "ploop")


def test_a_descriptor_that_is_a_symlink_is_refused(share: Path, image: Path) -> None:
    (image / DESCRIPTOR).rename(image / "moved")
    (image / DESCRIPTOR).symlink_to("moved")
    assert "is a symbolic link" in refused(share, "disk", "ploop")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<a/>",
        "<a><File/></a>",
        "<a><File>b<x/>c</File></a>",
        "<a><File>b<!-- -->c</File></a>",
        "<a><File><![CDATA[b]]></File></a>",
        "<a><File>b<?x y?>c</File></a>",
        '<!DOCTYPE a [<!ENTITY e SYSTEM "/etc/shadow">]><a><File>&e;</File></a>',
        '<?xml version="1.0" encoding="UTF-16"?><a><File>b</File></a>',
        "<a><File>b</File>",
        "<a><File>b</File></a>" + " " * ploop.MAX_DESCRIPTOR_BYTES,
        "\ufffe",
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(text: str) -> None:
    with pytest.raises(Refused):
        ploop.files(text.encode("utf-16" if text == "\ufffe" else "utf-8"))


@pytest.mark.parametrize(
    "start", ["", '<?xml version="1.0"?>\n', "<?xml version='1.0' encoding='utf-8'?>"]
)
def test_all_files_are_found_wherever_they_are_named(start: str) -> None:
    text = start + '<a xmlns:p="urn:p"><x><File>b</File></x><p:File>c</p:File></a>'
    assert ploop.files(text.encode()) == ["b", "c"]
