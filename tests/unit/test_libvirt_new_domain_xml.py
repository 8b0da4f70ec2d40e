"""Definitions of guests: from scratch, and from a template that is respected."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from moorline.errors import Refused
from moorline.hypervisors.libvirt.launch_options import Hardware
from moorline.hypervisors.libvirt.new_domain_xml import (
    ROOT_PORTS,
    Platform,
    boot_place,
    difference,
    from_scratch,
    from_template,
    launched,
    platform,
)

KVM = Platform("kvm", "x86_64", "pc-q35-7.2", host_model=True)
TCG = Platform("qemu", "x86_64", "pc-i440fx-7.2", host_model=False)
TEMPLATE = """
<domain type='kvm' id='7'>
  <name>golden</name><uuid>7b1d2f6e-3a0c-4b5e-9d8f-0a1b2c3d4e5f</uuid>
  <metadata><theirs xmlns='urn:theirs'/></metadata>
  <memory unit='GiB'>4</memory><currentMemory unit='GiB'>3</currentMemory>
  <vcpu placement='static'>8</vcpu>
  <sysinfo type='smbios'><system><entry name='product'>OpenStack</entry>
    <entry name='uuid'>7b1d2f6e-3a0c-4b5e-9d8f-0a1b2c3d4e5f</entry></system></sysinfo>
  <os><type arch='x86_64' machine='pc-q35-6.0'>hvm</type>
    <nvram template='/usr/share/vars.fd'>/var/lib/golden_vars.fd</nvram></os>
  <devices>
    <disk type='file' device='disk'><source file='/golden.raw'/><target dev='vda'/></disk>
    <disk type='file' device='cdrom'><target dev='sda'/><boot order='1'/></disk>
    <disk type='file' device='cdrom'><source file='/iso/a.iso'/><target dev='sdb'/>
      <alias name='ua-one'/><serial>one</serial></disk>
    <interface type='bridge'><source bridge='br0'/></interface>
  </devices>
</domain>
"""


def template(**more: int) -> ET.Element:
    return ET.fromstring(from_template("web01", Hardware(template=(TEMPLATE), **more)))


def test_from_scratch_it_is_a_server_with_room() -> None:
    xml = ET.fromstring(from_scratch("web01", Hardware(512, 3, "lan"), KVM))
    assert (xml.get("type"), xml.findtext("name")) == ("kvm", "web01")
    assert (xml.findtext("memory"), xml.findtext("vcpu")) == ("512", "3")
    ports = xml.findall("devices/controller[@model='pcie-root-port']")
    assert len(ports) == ROOT_PORTS
    assert xml.find("cpu[@mode='host-model']") is not None
    assert xml.find("devices/interface/source[@network='lan']") is not None
    assert xml.find("devices/disk[@device='disk']") is None
    assert launched(xml)
    assert boot_place(xml) == 1


def test_without_kvm_and_q35_it_asks_for_neither() -> None:
    xml = ET.fromstring(from_scratch("web01", Hardware(), TCG))
    assert xml.get("type") == "qemu"
    assert xml.find("cpu") is None
    assert xml.find("devices/controller[@type='pci']") is None
    assert xml.find("devices/interface") is None
    assert xml.find("devices/disk/target[@bus='ide']") is not None


def test_a_template_is_respected_in_all_that_it_says() -> None:
    xml = template()
    assert xml.findtext("name") == "web01"
    assert xml.find("uuid") is None
    assert [entry.text for entry in xml.iterfind("sysinfo/system/entry")] == ["OpenStack"]
    assert xml.get("id") is None
    assert [disk.get("device") for disk in xml.iterfind("devices/disk")] == ["cdrom"]
    assert (xml.findtext("memory"), xml.findtext("currentMemory")) == ("4", "3")
    assert xml.find("vcpu[@placement='static']") is not None
    assert xml.find("devices/interface/source[@bridge='br0']") is not None
    assert xml.find("metadata/{urn:theirs}theirs") is not None
    assert launched(xml)


def test_a_uuid_alone_in_what_the_firmware_tells_leaves_nothing_of_it() -> None:
    alone = TEMPLATE.replace("<entry name='product'>OpenStack</entry>", "")
    xml = ET.fromstring(from_template("web01", Hardware(template=(alone))))
    assert [list(sysinfo) for sysinfo in xml.findall("sysinfo")] == [[]]


def test_its_firmware_gets_variables_of_its_own() -> None:
    nvram = template().find("os/nvram")
    assert nvram is not None
    assert (nvram.text, nvram.get("template")) == (None, "/usr/share/vars.fd")


def test_its_size_changes_only_if_that_is_asked() -> None:
    xml = template(memory=1024, vcpus=2)
    assert (xml.findtext("memory"), xml.find("currentMemory")) == ("1024", None)
    assert xml.findtext("vcpu") == "2"


def test_the_boot_volume_comes_behind_what_the_template_boots_first() -> None:
    assert boot_place(template()) == 2


def test_an_order_by_kinds_of_devices_leaves_no_place() -> None:
    by_kind = TEMPLATE.replace("<os>", "<os><boot dev='hd'/>")
    xml = ET.fromstring(from_template("web01", Hardware(template=(by_kind))))
    assert boot_place(xml) == 0


def test_marking_twice_marks_once() -> None:
    again = ET.tostring(template(), encoding="unicode")
    xml = ET.fromstring(from_template("web02", Hardware(template=again)))
    metadata = xml.find("metadata")
    assert metadata is not None
    assert len(metadata) == 2


@pytest.mark.parametrize(
    ("text", "why"),
    [("<domain", "not XML"), ("<network/>", "<network>, not a <domain>"), ("nothing", "not XML")],
)
def test_what_is_no_template_is_refused(text: str, why: str) -> None:
    with pytest.raises(Refused, match=why):
        from_template("web01", Hardware(template=(text)))


def test_numa_cells_cannot_be_resized() -> None:
    numa = TEMPLATE.replace("<os>", "<cpu><numa><cell id='0'/></numa></cpu><os>")
    with pytest.raises(Refused, match="NUMA"):
        from_template("web01", Hardware(memory=1024, template=(numa)))


def test_a_guest_that_differs_from_what_is_asked() -> None:
    xml = ET.fromstring("<domain><memory unit='KiB'>524288</memory><vcpu>2</vcpu></domain>")
    assert difference(xml, Hardware()) == ""
    assert difference(xml, Hardware(512, 2)) == ""
    assert difference(xml, Hardware(1024)) == "has 512 MiB of memory, not 1024"
    assert difference(xml, Hardware(vcpus=4)) == "has 2 vCPUs, not 4"
    assert difference(xml, Hardware(network="none")) == ""
    assert difference(xml, Hardware(network="lan")) == "is not on the network lan"
    on_lan = ET.fromstring(from_scratch("web01", Hardware(512, 2, "lan"), KVM))
    assert difference(on_lan, Hardware(network="lan")) == ""
    assert difference(on_lan, Hardware(network="dmz")) == "is not on the network dmz"
    assert difference(on_lan, Hardware(network="none")) == "has a network"


def test_what_qemu_can_be_here() -> None:
    told = """<domainCapabilities><domain>kvm</domain><machine>pc-q35-7.2</machine>
      <arch>x86_64</arch><cpu><mode name='host-model' supported='yes'/></cpu>
      </domainCapabilities>"""
    assert platform(told) == KVM
    assert platform(told.replace("'yes'", "'no'")).host_model is False
