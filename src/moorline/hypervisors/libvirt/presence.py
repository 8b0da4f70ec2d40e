"""How a guest is on a host, and what it is told by: libvirt's state, and a mark of our own. Pure.

A copy that a migration brings is paused as one is that a person paused: to libvirt both are
PAUSED, for the reason USER. So the definition that goes with the guest bears a mark, in its running
half alone. It is taken away when the copy is let run.
"""

from __future__ import annotations

from collections.abc import Callable
from xml.etree import ElementTree as ET

from moorline.hypervisors.libvirt.domain_xml import HARD_DISKS, marked_as
from moorline.ports.moving import Presence

ARRIVED_NAMESPACE = "urn:moorline:arrived:1"
"""The XML namespace of the mark in a domain's metadata."""
PREFIX = "moorline-arrived"
NOVA = "{http://openstack.org/xmlns/libvirt/nova/"
"""What the tags of Nova's metadata begin with, whatever its version."""
SHARED = frozenset(
    (
        *("nfs", "nfs4", "gfs2", "ocfs2", "afs", "smb3", "cifs", "ceph", "gpfs", "acfs"),
        *("fuse.quobyte", "fuse.glusterfs"),
    )
)
"""The file systems that libvirt knows to be shared (``virFileIsSharedFSType``, ``virfile.c``)."""
PAUSED = 3
"""VIR_DOMAIN_PAUSED."""
UNKNOWN, BY_USER, MIGRATION, STARTING_UP = 0, 1, 2, 11
"""Reasons of VIR_DOMAIN_PAUSED."""
_ELEMENT = f"{{{ARRIVED_NAMESPACE}}}arrived"

ET.register_namespace(PREFIX, ARRIVED_NAMESPACE)


def presence(xml: ET.Element, state: int, reason: int, *, job: bool) -> Presence:
    """How a guest is here. *job*: something is under way with it, such as its migration.

    *xml*: of what runs if it runs. libvirt gives an id to that.
    """
    if xml.get("id") is None:
        return Presence.STOPPED
    if state != PAUSED:
        return Presence.RUNNING
    if has_mark(xml):
        if reason in (UNKNOWN, BY_USER):
            return Presence.ARRIVED
        return Presence.INCOMING if reason in (MIGRATION, STARTING_UP) else Presence.RUNNING
    return Presence.SENT if reason == MIGRATION and not job else Presence.RUNNING


def has_mark(xml: ET.Element) -> bool:
    """Whether what runs is a copy that was not let run yet."""
    return _mark(xml) is not None


def was_paused(xml: ET.Element) -> bool:
    """Whether the copy's original was paused by a person, and so is to stay paused."""
    mark = _mark(xml)
    return mark is not None and mark.get("paused") == "yes"


def marked(xml: str, *, paused: bool) -> str:
    """The definition of what runs, as it goes along with the guest. *paused*: by a person."""
    domain = ET.fromstring(xml)  # noqa: S314 - libvirt's own output
    metadata = domain.find("metadata")
    if metadata is None:
        metadata = ET.SubElement(domain, "metadata")
    for old in metadata.findall(_ELEMENT):
        metadata.remove(old)
    ET.SubElement(metadata, _ELEMENT, {"paused": "yes"} if paused else {})
    return ET.tostring(domain, encoding="unicode")


def is_novas(xml: ET.Element) -> bool:
    """Whether Nova made it, and drives it."""
    return any(each.tag.startswith(NOVA) for each in xml.iterfind("metadata/*"))


def unshared(xml: ET.Element, type_at: Callable[[str], str]) -> str:
    """Why a disk cannot go along: nobody says that both hosts have it; '': all can.

    libvirt takes it for granted of block devices, and knows by name the file systems that are
    shared. Of others a back end knows it: it has libvirt leave an image's owner alone
    (``relabel='no'``) where whoever opens it on another host must go on to own it. With the page
    cache, each host would have its own. *type_at* tells the type of the file system at a path.
    """
    for disk in xml.iterfind("devices/disk"):
        if disk.get("device", "disk") not in HARD_DISKS or disk.find("readonly") is not None:
            continue
        if disk.get("type") == "network":
            continue  # it has no page cache, and libvirt takes it for shared
        driver, source = disk.find("driver"), disk.find("source")
        direct = driver is not None and driver.get("cache") in ("none", "directsync")
        target = disk.find("target")
        name = target.get("dev", "") if target is not None else "?"
        if not direct:
            return f"disk {name} is in this host's page cache, which no other host sees"
        if source is None or not _is_on_both(disk, source, type_at):
            return f"disk {name} is on storage of which nobody says that other hosts have it"
    return ""


def _is_on_both(disk: ET.Element, source: ET.Element, type_at: Callable[[str], str]) -> bool:
    label = source.find("seclabel[@model='dac']")
    kept = label is not None and label.get("relabel") == "no"
    known = disk.get("type") == "block" or type_at(source.get("file", "")) in SHARED
    return known or (kept and marked_as(disk) is not None)


def _mark(xml: ET.Element) -> ET.Element | None:
    return xml.find(f"metadata/{_ELEMENT}")
