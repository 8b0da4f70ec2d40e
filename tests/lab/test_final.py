"""What libvirt and QEMU never will take is said at once, and a race is none of that."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from libvirt_rig import CONFIG, id_of, small_xml
from scene import Scene, start_paused

from lab.guest import Guest
from moorline.core.retry_loop import REPEATED_FAILURES
from moorline.errors import Failed, Refused
from moorline.hypervisors.libvirt.hypervisor import Libvirt
from moorline.model import DiskOptions, DiskState, ImageFile, VolumeId

VOLUME = VolumeId("3f2a9c4e-1111-4222-8333-abcdefabcdef")


@pytest.fixture
def files(lab: Path, leftovers_check: None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=lab, prefix="files-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def raw(path: Path, size: int = 1 << 20) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


def defined(connection: Any, domain: Any, change: Any) -> Any:
    """Define the guest anew, with its XML changed."""
    xml = ET.fromstring(domain.XMLDesc(2))
    change(xml)
    return connection.defineXML(ET.tostring(xml, encoding="unicode"))


def test_what_libvirt_does_not_support_is_refused(
    libvirt_conn: Any, stopped: Any, files: Path
) -> None:
    """Two ways to say what it boots from."""

    def boots(xml: ET.Element) -> None:
        ET.SubElement(xml.find("os"), "boot", dev="hd")  # type: ignore[arg-type]
        for direct in ("kernel", "initrd", "cmdline"):
            if (found := xml.find(f"os/{direct}")) is not None:
                xml.find("os").remove(found)  # type: ignore[union-attr]

    defined(libvirt_conn, stopped, boots)
    hypervisor = Libvirt()
    source = ImageFile(raw(files / "disk.raw"), "raw")
    with pytest.raises(Refused, match="boot"):
        hypervisor.attach(id_of(stopped), VOLUME, source, DiskOptions(boot=1))
    assert hypervisor.disks(id_of(stopped)) == {}
    hypervisor.close()


@pytest.mark.parametrize("bus", ["virtio", "scsi"])
def test_a_place_that_somebody_took_meanwhile_is_chosen_anew(
    libvirt_conn: Any, stopped: Any, files: Path, bus: str
) -> None:
    hypervisor = Libvirt()
    me = id_of(stopped)
    source = ImageFile(raw(files / "disk.raw"), "raw")
    assert hypervisor.disks(me) == {}  # a pass looks; then somebody else is faster
    theirs = raw(files / "theirs.raw")
    target, place = ("vda", "") if bus == "virtio" else ("sda", ADDRESS)
    stopped.attachDeviceFlags(
        f"<disk type='file' device='disk'><source file='{theirs}'/>"
        f"<target dev='{target}' bus='{bus}'/>{place}</disk>",
        CONFIG,
    )
    with suppress(Failed):  # but never Refused: the next try finds another place
        hypervisor.attach(me, VOLUME, source, DiskOptions(bus=bus))
    hypervisor.attach(me, VOLUME, source, DiskOptions(bus=bus))
    disk = hypervisor.disks(me)[VOLUME]
    assert disk.state is DiskState.WHOLE
    assert disk.device != target
    hypervisor.close()


ADDRESS = "<address type='drive' controller='0' bus='0' target='0' unit='0'/>"


def test_a_conventional_bridge_has_no_room_for_virtio(
    scene: Scene, libvirt_conn: Any, leftovers_check: None
) -> None:
    xml = ET.fromstring(small_xml("q35", 1, ""))
    xml.find("name").text = "bridged"  # type: ignore[union-attr]
    devices = xml.find("devices")
    assert devices is not None
    ET.SubElement(devices, "controller", type="pci", model="pcie-to-pci-bridge")
    domain = libvirt_conn.defineXML(ET.tostring(xml, encoding="unicode"))
    try:
        start_paused(domain)
        volume = scene.volume()
        said = scene.attach("bridged", volume, "--timeout", "3600", code=3).stderr
        assert "has no free PCI port for a virtio disk" in said
        assert "pcie-root-port" in said
        assert scene.is_clean()
    finally:
        domain.destroy()
        domain.undefine()


def test_a_volume_that_is_not_there_is_not_waited_for_a_minute(scene: Scene, guest: Guest) -> None:
    """Its client says no more than that it failed; the attachment is kept, as it may come."""
    export = f"{scene.share.cluster.registries[0]}/no-such-volume"
    volume = scene.volume(export=export)
    said = scene.attach(guest.name, volume, code=5).stderr
    assert "the attachment is kept" in said
    calls = [call for call in scene.share.cluster.calls() if export in call["argv"]]
    # Pauses double: the ten seconds that are meant have room for nine tries, a minute for more.
    assert REPEATED_FAILURES <= len(calls) <= 9
    scene.detach(guest.name, volume)
    assert scene.is_clean()


def test_libvirt_that_is_away_has_a_code_of_its_own(scene: Scene, guest: Guest) -> None:
    volume = scene.volume()
    away = ("--hypervisor", "qemu:///system?socket=/no/such/socket")
    assert "cannot be reached" in scene.attach(guest.name, volume, *away, code=11).stderr
    assert scene.attachments() == {}
