"""How a guest is on a host, and what it is told by: libvirt's state, and a mark of our own. Pure.

A copy that a migration brings is paused as one is that a person paused: to libvirt both are
PAUSED, for the reason USER. So the definition that goes with the guest bears a mark, in its running
half alone. It is taken away when the copy is let run.
"""

from __future__ import annotations

from xml.etree import ElementTree as ET

from moorline.hypervisors.libvirt.domain import HARD_DISKS, marked_as
from moorline.ports.moving import Presence

MARK = "urn:moorline:arrived:1"
"""The XML namespace of the mark in a domain's metadata."""
PREFIX = "moorline-arrived"
NOVA = "{http://openstack.org/xmlns/libvirt/nova/"
"""What the tags of Nova's metadata begin with, whatever its version."""
PAUSED = 3
"""VIR_DOMAIN_PAUSED."""
UNKNOWN, BY_USER, MIGRATION, STARTING_UP = 0, 1, 2, 11
"""Reasons of VIR_DOMAIN_PAUSED."""
_ELEMENT = f"{{{MARK}}}arrived"

ET.register_namespace(PREFIX, MARK)


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


def unshared(xml: ET.Element) -> str:
    """The first disk of which nobody says that both hosts have it; '': there is none.

    libvirt knows by name the file systems that are shared. Of others a back end knows it: it has
    libvirt leave an image's owner alone (``relabel='no'``) where whoever opens it on another host
    must go on to own it. With the page cache, each host would have its own.
    """
    for disk in xml.iterfind("devices/disk"):
        if disk.get("device", "disk") not in HARD_DISKS or disk.find("readonly") is not None:
            continue
        driver, label = disk.find("driver"), disk.find("source/seclabel[@model='dac']")
        direct = driver is not None and driver.get("cache") in ("none", "directsync")
        kept = label is not None and label.get("relabel") == "no"
        if marked_as(disk) is None or not direct or not kept:
            target = disk.find("target")
            return target.get("dev", "") if target is not None else "?"
    return ""


def _mark(xml: ET.Element) -> ET.Element | None:
    return xml.find(f"metadata/{_ELEMENT}")
