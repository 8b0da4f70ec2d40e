"""A guest's definition, from a template or from scratch. Pure.

https://libvirt.org/formatdomain.html, https://libvirt.org/formatdomaincaps.html
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from xml.etree import ElementTree as ET

from moorline.errors import Refused
from moorline.hypervisors.libvirt.domain_xml import HARD_DISKS, marked_as
from moorline.hypervisors.libvirt.launch_options import Hardware

LAUNCHED_NAMESPACE = "urn:moorline:launched:1"
"""The XML namespace of the element in a domain's metadata that says that we made it."""
MEMORY, VCPUS = 2048, 2
"""MiB of a guest's memory if none is given."""
ROOT_PORTS = 20
"""PCIe places of a q35 machine. The devices below take five, each virtio disk one, and a
device can be plugged into a running q35 machine only where a port is spare."""
_ELEMENT = f"{{{LAUNCHED_NAMESPACE}}}launched"

ET.register_namespace("moorline", LAUNCHED_NAMESPACE)


@dataclass(frozen=True, slots=True)
class Platform:
    """What QEMU can be on this host."""

    type: str
    """``kvm``, or ``qemu`` where it emulates."""
    arch: str
    machine: str
    host_model: bool


def platform(capabilities: str) -> Platform:
    """Read what libvirt says of a domain's capabilities."""
    root = ET.fromstring(capabilities)  # noqa: S314 - libvirt's own output
    mode = root.find("cpu/mode[@name='host-model']")
    return Platform(
        root.findtext("domain", "qemu"),
        root.findtext("arch", ""),
        root.findtext("machine", ""),
        mode is not None and mode.get("supported") == "yes",
    )


def from_scratch(name: str, hardware: Hardware, platform: Platform) -> str:
    """A server without a screen: serial console, virtio, and room for more disks.

    *hardware*: its network is the name of a libvirt network, or ''.
    """
    domain = ET.Element("domain", type=platform.type)
    _text(domain, "name", name)
    _text(domain, "memory", str(hardware.memory or MEMORY), unit="MiB")
    _text(domain, "vcpu", str(hardware.vcpus or VCPUS))
    system = ET.SubElement(domain, "os")
    _text(system, "type", "hvm", arch=platform.arch, machine=platform.machine)
    features = ET.SubElement(domain, "features")
    ET.SubElement(features, "acpi")
    if platform.type == "kvm" and platform.host_model:
        ET.SubElement(domain, "cpu", mode="host-model")
    _devices(ET.SubElement(domain, "devices"), hardware, q35="q35" in platform.machine)
    _mark(domain)
    return ET.tostring(domain, encoding="unicode")


def from_template(name: str, hardware: Hardware) -> str:
    """The template, with our name and mark and without its disks. Raises Refused."""
    domain = _parsed(hardware.template)
    for tag in ("name", "uuid"):
        for element in domain.findall(tag):
            domain.remove(element)
    domain.attrib.pop("id", None)
    _text(domain, "name", name)
    _take_firmware_uuid(domain)
    _take_disks(domain)
    _size(domain, hardware)
    _mark(domain)
    return ET.tostring(domain, encoding="unicode")


def launched(domain: ET.Element) -> bool:
    """Whether a definition bears our mark."""
    return domain.find(f"metadata/{_ELEMENT}") is not None


def boot_place(domain: ET.Element) -> int:
    """The first place in the boot order that no device but a volume of ours has.

    0: the order is one of kinds of devices, with which libvirt allows no other.
    """
    if domain.find("os/boot") is not None:
        return 0
    taken = {
        boot.get("order")
        for device in domain.iterfind("devices/*")
        if marked_as(device) is None
        for boot in device.iterfind("boot")
    }
    return next(place for place in count(1) if str(place) not in taken)


def difference(domain: ET.Element, hardware: Hardware) -> str:
    """How a definition differs from what is asked for; '': it does not.

    A template is not compared.
    """
    memory = int(domain.findtext("memory", "0")) // 1024  # libvirt says KiB
    vcpus = int(domain.findtext("vcpu", "0"))
    if hardware.memory not in (None, memory):
        return f"has {memory} MiB of memory, not {hardware.memory}"
    if hardware.vcpus not in (None, vcpus):
        return f"has {vcpus} vCPUs, not {hardware.vcpus}"
    if hardware.network == "none" and domain.find("devices/interface") is not None:
        return "has a network"
    networks = [source.get("network") for source in domain.iterfind("devices/interface/source")]
    if hardware.network not in ("", "none", *networks):
        return f"is not on the network {hardware.network}"
    return ""


def addresses(domain: ET.Element) -> frozenset[str]:
    """The MAC addresses of a definition's network interfaces."""
    macs = domain.iterfind("devices/interface/mac")
    return frozenset(mac.get("address", "").lower() for mac in macs)


def _devices(devices: ET.Element, hardware: Hardware, *, q35: bool) -> None:
    if q35:
        ET.SubElement(devices, "controller", type="pci", model="pcie-root")
        for _ in range(ROOT_PORTS):
            ET.SubElement(devices, "controller", type="pci", model="pcie-root-port")
    ET.SubElement(devices, "controller", type="scsi", model="virtio-scsi")
    ET.SubElement(devices, "controller", type="usb", model="none")
    # Empty, for a rescue disc. It also keeps libvirt from ordering by kinds of
    # devices, which it does where no device has a place in the boot order.
    drive = ET.SubElement(devices, "disk", type="file", device="cdrom")
    bus, target = ("sata", "sda") if q35 else ("ide", "hda")
    ET.SubElement(drive, "target", dev=target, bus=bus)
    ET.SubElement(drive, "readonly")
    ET.SubElement(drive, "boot", order="2")
    if hardware.network:
        interface = ET.SubElement(devices, "interface", type="network")
        ET.SubElement(interface, "source", network=hardware.network)
        ET.SubElement(interface, "model", type="virtio")
    ET.SubElement(devices, "serial", type="pty")
    ET.SubElement(devices, "console", type="pty")
    channel = ET.SubElement(devices, "channel", type="unix")
    ET.SubElement(channel, "target", type="virtio", name="org.qemu.guest_agent.0")
    random = ET.SubElement(devices, "rng", model="virtio")
    _text(random, "backend", "/dev/urandom", model="random")


def _parsed(template: str) -> ET.Element:
    try:
        domain = ET.fromstring(template)  # noqa: S314 - the operator's own, as what virsh is given
    except ET.ParseError as e:
        raise Refused(f"the template is not XML: {e}") from e
    if domain.tag != "domain":
        raise Refused(f"the template is a <{domain.tag}>, not a <domain>")
    return domain


def _take_disks(domain: ET.Element) -> None:
    """Remove what two guests must not share: disks, volumes of ours, the firmware's variables."""
    for devices in domain.findall("devices"):
        for disk in devices.findall("disk"):
            if disk.get("device", "disk") in HARD_DISKS or marked_as(disk):
                devices.remove(disk)
    for nvram in domain.findall("os/nvram"):
        origin = nvram.get("template")
        nvram.clear()  # libvirt names a new file after the guest
        if origin is not None:
            nvram.set("template", origin)


def _take_firmware_uuid(domain: ET.Element) -> None:
    """Remove the UUID in the firmware's tables: libvirt would take it for the guest's."""
    for sysinfo in domain.findall("sysinfo"):
        for system in sysinfo.findall("system"):
            for entry in system.findall("entry[@name='uuid']"):
                system.remove(entry)
            if not len(system):
                sysinfo.remove(system)  # its schema wants an entry


def _size(domain: ET.Element, hardware: Hardware) -> None:
    asked = (hardware.memory, hardware.vcpus) != (None, None)
    if asked and domain.find("cpu/numa") is not None:
        raise Refused("the template divides its memory into NUMA cells, and cannot be resized")
    if hardware.memory is not None:
        _replace(domain, ("memory", "currentMemory"), str(hardware.memory), unit="MiB")
    if hardware.vcpus is not None:
        _replace(domain, ("vcpu", "vcpus"), str(hardware.vcpus))


def _replace(domain: ET.Element, tags: tuple[str, str], text: str, **attributes: str) -> None:
    """Put *text* into the first of *tags*, and remove the other, which would contradict it."""
    for tag in tags:
        for element in domain.findall(tag):
            domain.remove(element)
    _text(domain, tags[0], text, **attributes)


def _mark(domain: ET.Element) -> None:
    metadata = domain.find("metadata")
    if metadata is None:
        metadata = ET.SubElement(domain, "metadata")
    for element in metadata.findall(_ELEMENT):
        metadata.remove(element)
    ET.SubElement(metadata, _ELEMENT)


def _text(parent: ET.Element, tag: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, tag, attributes).text = text
