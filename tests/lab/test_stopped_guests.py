"""A share stays while a stopped guest may need it, however that names it; real libvirt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from libvirt_rig import small_xml
from scene import Scene, small_guest, start_paused

POOL = "of-the-share"
SAVES = Path("/var/lib/libvirt/qemu/save")
FAILED, UNAVAILABLE = 5, 11


def define(connection: Any, name: str, kind: str, uuid: str = "", **source: str) -> Any:
    """A stopped guest with one disk, which bears nobody's mark."""
    xml = ET.fromstring(small_xml("q35", 6, ""))
    xml.find("name").text = name  # type: ignore[union-attr]
    if uuid:
        ET.SubElement(xml, "uuid").text = uuid
    disk = ET.SubElement(xml.find("devices"), "disk", type=kind, device="disk")  # type: ignore[type-var, arg-type]
    ET.SubElement(disk, "driver", name="qemu", type="raw")
    ET.SubElement(disk, "source", **source)
    ET.SubElement(disk, "target", dev="vda", bus="virtio")
    return connection.defineXML(ET.tostring(xml, encoding="unicode"))


@pytest.fixture
def spelled(scene: Scene, tmp_path: Path) -> Iterator[Any]:
    """Defines a guest that names a file by a pool, or through a symlink."""
    made = []

    def spell(how: str, path: Path) -> Any:
        if how == "pool":
            target = f"<target><path>{path.parent}</path></target>"
            xml = f"<pool type='dir'><name>{POOL}</name>{target}</pool>"
            made.append(scene.libvirt.storagePoolDefineXML(xml))
            domain = define(scene.libvirt, "by-pool", "volume", pool=POOL, volume=path.name)
        else:
            (tmp_path / "disks").symlink_to(path.parent)
            link = tmp_path / "disks" / path.name
            domain = define(scene.libvirt, "by-link", "file", file=str(link))
        made.append(domain)
        return domain

    yield spell
    for each in made:
        each.undefine()


@pytest.mark.parametrize("how", ["pool", "symlink"])
def test_a_share_is_not_taken_from_a_stopped_guest(
    scene: Scene, stopped: Any, spelled: Any, how: str
) -> None:
    volume, other = scene.volume(), scene.volume()
    scene.attach(stopped.name(), volume)
    guest = spelled(how, scene.mount_point() / other.file.name)
    scene.detach(stopped.name(), volume)
    assert scene.mounts(), f"{guest.name()} names a file on it"
    assert scene.moorline.json("doctor", code=10)["findings"][0]["check"] == "unmanaged-disk"
    define(scene.libvirt, guest.name(), "file", file="/nowhere", uuid=guest.UUIDString())
    scene.moorline("repair")
    assert scene.is_clean()


def test_a_pool_that_is_gone_keeps_the_share(scene: Scene, stopped: Any) -> None:
    volume = scene.volume()
    scene.attach(stopped.name(), volume)
    guest = define(scene.libvirt, "by-pool", "volume", pool="gone", volume="v.raw")
    try:
        told = scene.detach(stopped.name(), volume, "--timeout", "1", code=FAILED).stderr
        assert "guest by-pool names volume v.raw of storage pool gone" in told
        assert scene.mounts()
    finally:
        guest.undefine()
    scene.moorline("sweep")
    assert scene.is_clean()


def test_a_broken_managed_save_is_one_unknown(scene: Scene, stopped: Any) -> None:
    first, second, third = scene.volume(), scene.volume(), scene.volume()
    with small_guest(scene.libvirt, "broken", running=True) as broken:
        scene.attach(stopped.name(), first)
        broken.managedSave()
        save = SAVES / "broken.save"
        save.write_bytes(save.read_bytes()[:64])
        try:
            scene.attach(stopped.name(), second)
            scene.detach(stopped.name(), second)
            assert scene.attachments() == {first.id: ("attached", "attached")}
            found = scene.moorline.json("doctor", code=10)["findings"]
            (finding,) = (each for each in found if each["check"] == "unreadable-guest")
            assert finding["next"] == "virsh managedsave-remove broken"
            scene.detach(stopped.name(), first, "--timeout", "1", code=FAILED)
            assert scene.mounts(), "its saved state may name a file there"
            told = scene.attach("broken", third, "--timeout", "1", code=UNAVAILABLE).stderr
            assert "virsh managedsave-remove broken" in told
        finally:
            broken.managedSaveRemove()
        scene.moorline("sweep")
        scene.detach("broken", third)
        assert scene.is_clean()


def test_a_saved_guest_that_can_be_read_leaves_nothing_unresolved(
    scene: Scene, stopped: Any
) -> None:
    volume = scene.volume()
    with small_guest(scene.libvirt, "saved") as saved:
        start_paused(saved)
        scene.attach(stopped.name(), volume)
        saved.managedSave()
        try:
            scene.detach(stopped.name(), volume)
            assert scene.is_clean()
        finally:
            saved.managedSaveRemove()
