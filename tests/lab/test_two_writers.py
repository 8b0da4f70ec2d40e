"""A file that somebody else has is not given away, whatever it is called there."""

from __future__ import annotations

import os
import stat
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from libvirt_rig import CONFIG, LIVE, loop_device, mounted
from scene import Scene, findings

from lab import host
from lab.guest import Guest

CLASH = "has {} already"


@contextmanager
def has(
    domain: Any, path: Path, form: str = "raw", *, half: int = CONFIG, more: str = ""
) -> Iterator[None]:
    """A disk without our mark, as a person with virsh plugs it."""
    disk = ET.Element("disk", type="file", device="disk")
    ET.SubElement(disk, "driver", name="qemu", type=form)
    ET.SubElement(disk, "source", file=str(path))
    ET.SubElement(disk, "target", dev="sdz", bus="scsi")
    ET.SubElement(disk, "address", type="drive", controller="0", bus="0", target="0", unit="9")
    if more:
        ET.SubElement(disk, more)
    xml = ET.tostring(disk, encoding="unicode")
    domain.attachDeviceFlags(xml, half)
    try:
        yield
    finally:
        domain.detachDeviceFlags(xml, half)


@pytest.fixture
def files(lab: Path, leftovers_check: None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=lab, prefix="files-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def image(path: Path, *args: str, form: str = "raw") -> Path:
    subprocess.run(["qemu-img", "create", "-qf", form, *args, path, "1M"], check=True)
    path.chmod(0o666)
    return path


def attach(scene: Scene, guest: str, path: Path | str, *args: str, code: int = 0) -> str:
    form = () if "--format" in args else ("--format", "raw")
    done = scene.moorline("attach", guest, str(path), *form, *args, code=code)
    return done.stderr


def test_a_running_guest_s_disk(
    scene: Scene, guest: Guest, second_guest: Guest, stopped: Any
) -> None:
    volume, other = scene.volume(), scene.volume()
    scene.attach(stopped.name(), other)  # the share is mounted
    path = scene.mount_point() / volume.file.name
    domain = scene.libvirt.lookupByName(second_guest.name)
    with has(domain, path, half=LIVE):
        said = scene.attach(guest.name, volume, code=3).stderr
        assert f"{second_guest.name} {CLASH.format(path)}" in said
        assert scene.attach(guest.name, volume, "--dry-run", code=3).stderr
        assert list(scene.attachments()) == [other.id]
    scene.attach(guest.name, volume)
    scene.detach(guest.name, volume)
    scene.detach(stopped.name(), other)
    assert scene.is_clean()


def test_beneath_a_stopped_guest_s_disk(
    scene: Scene, guest: Guest, stopped: Any, files: Path
) -> None:
    base = image(files / "base.qcow2", form="qcow2")
    top = image(files / "top.qcow2", "-F", "qcow2", "-b", "base.qcow2", form="qcow2")
    with has(stopped, top, "qcow2"):
        said = attach(scene, guest.name, base, "--format", "qcow2", code=3)
        assert f"{stopped.name()} {CLASH.format(base)}" in said
        assert scene.attachments() == {}


@pytest.mark.parametrize(
    ("args", "more"), [(("--read-only",), "readonly"), (("--shared",), "shareable")]
)
def test_both_read_it_or_both_share_it(
    scene: Scene, guest: Guest, stopped: Any, files: Path, args: tuple[str, ...], more: str
) -> None:
    path = image(files / "disk.raw")
    with has(stopped, path, more=more):
        attach(scene, guest.name, path, code=3)
        attach(scene, guest.name, path, *args)
        scene.moorline("detach", guest.name, str(path))


@pytest.mark.parametrize("how", ["hard link", "bind mount"])
def test_a_local_file_by_another_name(
    scene: Scene, guest: Guest, second_guest: Guest, files: Path, how: str
) -> None:
    (files / "real").mkdir()
    (files / "also").mkdir()
    path = image(files / "real/disk.raw")
    other = files / "also/disk.raw"
    if how == "bind mount":
        subprocess.run(["mount", "--bind", path.parent, other.parent], check=True)
    try:
        attach(scene, guest.name, path)
        if how == "hard link":
            os.link(path, other)
        said = attach(scene, second_guest.name, other, code=3)
        assert f"{guest.name} {CLASH.format(other)}, as {path}" in said or "hard links" in said
        assert [v["guest"] for v in scene.moorline.json("list")] == [guest.name]
        scene.moorline("detach", guest.name, str(path))
        # Nobody waited for that.
        assert scene.moorline.json("sweep") == []
        second = scene.libvirt.lookupByName(second_guest.name)
        assert str(other) not in second.XMLDesc() + second.XMLDesc(2)
    finally:
        if how == "bind mount":
            host.umount(other.parent)
    assert scene.attachments() == {}


@contextmanager
def partitioned(file: Path) -> Iterator[tuple[Path, Path]]:
    """A disk of this kernel's, and its partition; what is stored on it is a DOS partition table."""
    with file.open("wb") as disk:
        disk.truncate(4 << 20)
        disk.seek(446)
        disk.write(struct.pack("<8BII", 0, 0, 0, 0, 0x83, 0, 0, 0, 2048, 4096) + bytes(48))
        disk.write(b"\x55\xaa")
    with loop_device(file) as device:
        subprocess.run(["partx", "--add", device], check=True)
        partition = device.with_name(f"{device.name}p1")
        number = Path(f"/sys/class/block/{partition.name}/dev").read_text().strip()
        made = not partition.exists()
        if made:
            os.mknod(partition, 0o600 | stat.S_IFBLK, os.makedev(*map(int, number.split(":"))))
        try:
            yield device, partition
        finally:
            subprocess.run(["partx", "--delete", device], check=True)
            if made:
                partition.unlink()


@pytest.mark.parametrize("whole_first", [True, False])
def test_a_disk_and_its_partition(
    scene: Scene, guest: Guest, stopped: Any, files: Path, whole_first: bool
) -> None:
    with partitioned(files / "disk.raw") as (device, partition):
        first, second = (device, partition) if whole_first else (partition, device)
        with has(stopped, first):
            said = attach(scene, guest.name, second, code=3)
            assert f"{stopped.name()} {CLASH.format(second)}, as {first}" in said
        attach(scene, guest.name, second)
        with has(stopped, first):
            assert findings(scene)["shared-file"]["subject"] == str(second)
        scene.moorline("detach", guest.name, str(second))


def test_the_doctor_names_two_that_have_one_file(
    scene: Scene, guest: Guest, stopped: Any, files: Path
) -> None:
    (files / "also").mkdir()
    base = image(files / "base.qcow2", form="qcow2")
    top = image(files / "top.qcow2", "-F", "qcow2", "-b", "base.qcow2", form="qcow2")
    attach(scene, guest.name, base, "--format", "qcow2", "--read-only")
    with has(stopped, top, "qcow2"):
        assert "shared-file" not in findings(scene)  # both only read it
    subprocess.run(["mount", "--bind", files, files / "also"], check=True)
    try:
        with has(stopped, files / "also/base.qcow2", "qcow2"):
            told = findings(scene)["shared-file"]
    finally:
        host.umount(files / "also")
    assert told["subject"] == str(base)
    assert f"{stopped.name()}, which is stopped, has {files}/also/base.qcow2" in told["what"]
    assert told["next"].startswith(f"moorline detach {guest.name} ")
    scene.moorline("detach", guest.name, str(base))


def test_one_share_by_two_of_its_servers_names(
    scene: Scene, guest: Guest, second_guest: Guest
) -> None:
    """A mount that a person made by an address, and ours by a name: nothing but the file tells."""
    volume = scene.volume()
    by_hand = scene.directory / "by-hand"
    domain = scene.libvirt.lookupByName(second_guest.name)
    with mounted(scene.share, by_hand), has(domain, by_hand / volume.file.name, half=LIVE):
        said = scene.attach(guest.name, volume, code=3).stderr
        assert f"{second_guest.name} has" in said
        assert f"as {by_hand / volume.file.name}" in said
        assert scene.attachments() == {}
    scene.attach(guest.name, volume)
    scene.detach(guest.name, volume)
    assert scene.is_clean()


def test_somebody_s_share_that_hangs_holds_nobody_up(
    scene: Scene, guest: Guest, stopped: Any
) -> None:
    other = scene.share.cluster.volume("hangs")
    other.disk("disk.raw", 1 << 20)
    volume = scene.volume()
    by_hand = scene.directory / "by-hand"
    with mounted(other, by_hand), has(stopped, by_hand / "disk.raw"):
        other.daemon(hang=True)
        scene.attach(guest.name, volume)
        # Whether that guest's file is a symlink to our share cannot be told: the mount stays.
        scene.detach(guest.name, volume, "--timeout", "1", code=5)
        assert guest.disks() == {}
        other.daemon()
        scene.moorline("sweep")
    assert scene.is_clean()
