"""A disk's options and limits go with its guest from host to host: two libvirtds, and QEMU."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree as ET

import libvirt
import test_moving_libvirt
from libvirt_rig import CONFIG, LIVE, marked, small_xml
from test_moving_libvirt import LibvirtMovingRig

from lab.fleet.node import Node
from moorline.hypervisors.libvirt.disk_options_xml import options_of
from moorline.model import DiskOptions, GuestId
from moorline.testing.contracts.moving import VOLUME, send

OPTIONS = DiskOptions(
    bus="virtio",
    target="vdc",
    boot=1,
    startup_policy="optional",
    on_error="report",
    cache="none",
    io="threads",
    discard="unmap",
    detect_zeroes="unmap",
    queues=2,
    iothread=1,
    logical_block_size=512,
    physical_block_size=4096,
    total_iops_sec=500,
    total_iops_sec_max=900,
    total_iops_sec_max_length=3,
    read_bytes_sec=1 << 20,
    size_iops_sec=4096,
)
nodes = test_moving_libvirt.nodes


rig = test_moving_libvirt.rig


def new_guest(node: Node) -> GuestId:
    """One that boots by device, and has an I/O thread."""
    xml = ET.fromstring(small_xml("q35", 4, ""))
    xml.find("name").text = "moves-options"  # type: ignore[union-attr]
    ET.SubElement(xml, "iothreads").text = "1"
    drive = ET.SubElement(xml.find("devices"), "disk", type="file", device="cdrom")  # type: ignore[arg-type]
    ET.SubElement(drive, "target", dev="sdz", bus="sata")
    ET.SubElement(drive, "readonly")
    ET.SubElement(drive, "boot", order="2")
    for each in xml.findall("os/boot"):
        xml.find("os").remove(each)  # type: ignore[union-attr]
    connection = libvirt.open(node.libvirt_uri)
    domain = connection.defineXML(ET.tostring(xml, encoding="unicode"))
    domain.create()
    guest = GuestId(domain.UUIDString())
    connection.close()
    return guest


def qemus(node: Node) -> dict[str, Any]:
    """The disk as the QEMU on *node* has it."""
    asked = json.dumps({"execute": "query-block"})
    words = ["virsh", "-c", node.libvirt_uri, "qemu-monitor-command", "moves-options", asked]
    told = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    (found,) = (each for each in json.loads(told)["return"] if f"ua-{VOLUME}" in each["qdev"])
    inserted: dict[str, Any] = found["inserted"]
    return inserted


def halves(node: Node, guest: GuestId) -> list[ET.Element | None]:
    connection = libvirt.open(node.libvirt_uri)
    domain = connection.lookupByUUIDString(guest)
    found = [marked(domain, VOLUME, half) for half in (LIVE, CONFIG)]
    connection.close()
    return found


def test_options_and_limits_go_with_the_guest(rig: LibvirtMovingRig) -> None:
    guest = new_guest(rig.nodes[0])
    rig.here.attach(guest, VOLUME, rig.new_source(), OPTIONS)
    before = qemus(rig.nodes[0])
    send(rig, guest)
    rig.there.resume(guest)
    # What is as the storage needs it is not read back.
    known = replace(OPTIONS, cache="", io="", discard="")
    drivers = {"cache": "none", "io": "threads", "discard": "unmap"}
    for disk in halves(rig.nodes[1], guest):
        assert disk is not None
        assert options_of(disk) == known
        driver = disk.find("driver")
        assert driver is not None
        assert drivers.items() <= driver.attrib.items()
    after = qemus(rig.nodes[1])
    names = [name for name in before if name.startswith(("iops", "bps"))]
    assert (before["iops"], before["iops_max"], before["bps_rd"]) == (500, 900, 1 << 20)
    assert {n: after[n] for n in names} == {n: before[n] for n in names}
    assert after["detect_zeroes"] == "unmap"
    (disk,) = rig.there.disks(guest).values()
    assert disk.limits == {OPTIONS.limits()}
    rig.there.limit(guest, VOLUME, {"total_iops_sec": 70})  # type: ignore[attr-defined]
    assert (qemus(rig.nodes[1])["iops"], qemus(rig.nodes[1])["bps_rd"]) == (70, 0)
