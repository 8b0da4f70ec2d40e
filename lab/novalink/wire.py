"""The XML of the PowerVM REST API: values to documents, updates to values."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

from lxml import etree

from lab.novalink.model import Asked, Partition, Rejected, System
from lab.novalink.model import Mapping as ScsiMapping

ATOM = "http://www.w3.org/2005/Atom"
UOM = "http://www.ibm.com/xmlns/systems/power/firmware/uom/mc/2012_10/"
WEB = "http://www.ibm.com/xmlns/systems/power/firmware/web/mc/2012_10/"
_NS = {"u": UOM, "w": WEB}

Element: TypeAlias = Any  # lxml bears no types


def entry(title: str, ident: str, href: str, content: Element, etag: str = "") -> Element:
    """Wrap an object into an Atom entry."""
    root = etree.Element(f"{{{ATOM}}}entry", nsmap={None: ATOM})
    _text(root, ATOM, "id", ident)
    _text(root, ATOM, "title", title)
    _text(root, ATOM, "published", "2026-01-01T00:00:00Z")
    if href:
        etree.SubElement(root, f"{{{ATOM}}}link", rel="SELF", href=href)
    author = etree.SubElement(root, f"{{{ATOM}}}author")
    _text(author, ATOM, "name", "IBM Power Systems Management Console")
    if etag:
        _text(root, UOM, "etag", etag)
    kind = f"application/vnd.ibm.powervm.uom+xml; type={title}"
    etree.SubElement(root, f"{{{ATOM}}}content", type=kind).append(content)
    return root


def feed(href: str, entries: Iterable[Element]) -> Element:
    root = etree.Element(f"{{{ATOM}}}feed", nsmap={None: ATOM})
    _text(root, ATOM, "id", str(uuid.uuid4()))
    etree.SubElement(root, f"{{{ATOM}}}link", rel="SELF", href=href)
    root.extend(list(entries))
    return root


def error(status: int, path: str, message: str) -> Element:
    root = _object(WEB, "HttpErrorResponse")
    _text(root, WEB, "HTTPStatus", str(status))
    _text(root, WEB, "RequestURI", path)
    _text(root, WEB, "ReasonCode", "ETag mismatch" if status == 412 else "Unknown internal error.")
    _text(root, WEB, "Message", message)
    _text(root, WEB, "RequestBody", "")
    _text(root, WEB, "RequestHeaders", "{X-API-Session=*******}")
    return root


def logon(name: str, value: str) -> Element:
    root = _object(WEB, "LogonResponse")
    _text(root, WEB, name, value)
    return root


def system(s: System) -> Element:
    root = _object(UOM, "ManagedSystem")
    _text(root, UOM, "SystemName", s.name)
    return root


def partition(p: Partition, *, mappings: bool) -> Element:
    """A partition; *mappings*: with the group ViosSCSIMapping, to be filled by :func:`fill`."""
    root = _object(UOM, p.kind, p.uuid)
    capabilities = _child(root, "PartitionCapabilities")
    _text(capabilities, UOM, "DynamicLogicalPartitionIOCapable", str(p.dlpar).lower())
    _text(root, UOM, "PartitionID", str(p.id))
    _text(root, UOM, "PartitionName", p.name)
    _text(root, UOM, "PartitionState", p.state)
    kind = "Virtual IO Server" if p.kind == "VirtualIOServer" else "AIX/Linux"
    _text(root, UOM, "PartitionType", kind)
    _text(root, UOM, "PartitionUUID", p.uuid)
    _text(root, UOM, "ResourceMonitoringControlState", p.rmc)
    _text(root, UOM, "IsManagementPartition", str(p.management).lower())
    if mappings and p.kind == "VirtualIOServer":
        group = _child(root, "VirtualSCSIMappings", group="ViosSCSIMapping")
        group.append(etree.ProcessingInstruction("mappings"))
    return root


def fill(document: bytes, s: System, p: Partition, base: str) -> bytes:
    """Put the mappings of *p* where :func:`partition` left room for them.

    Only clients that are logical partitions are named by a link: neither Virtual I/O
    Servers nor what was deleted. Each is rendered once: this is a benchmark's server too.
    """
    clients = f"{base}/ManagedSystem/{s.uuid}/LogicalPartition/"
    code = "U" + s.name.replace("-", ".").replace("*", ".")
    named = {each.uuid for each in s.partitions.values() if each.kind == "LogicalPartition"}
    rendered = b"".join(
        _rendered(code, p.id, m, clients + m.client if m.client in named else "")
        for m in s.mappings.get(p.uuid, ())
    )
    return document.replace(b"<?mappings ?>", rendered)


@lru_cache(maxsize=10_000)
def _rendered(code: str, server: int, m: ScsiMapping, href: str) -> bytes:
    rendered: bytes = etree.tostring(_mapping(code, server, m, href))
    return rendered


def _mapping(code: str, server: int, m: ScsiMapping, href: str) -> Element:
    """*code*: the system's location code, with which those of its adapters begin."""
    root = etree.Element(f"{{{UOM}}}VirtualSCSIMapping", nsmap={None: UOM}, schemaVersion="V1_0")
    _metadata(root, UOM)
    if href:
        _child(root, "AssociatedLogicalPartition", rel="related", href=href)
    if m.adapter:
        client = _child(root, "ClientAdapter")
        _adapter(client, code, "Client", m.client_id, m.client_slot)
        _remote(client, server, m.server_slot)
    peer = _child(root, "ServerAdapter")
    _adapter(peer, code, "Server", server, m.server_slot)
    if m.disk:
        _text(peer, UOM, "BackingDeviceName", m.disk.path)
    _remote(peer, m.client_id, m.client_slot)
    _text(peer, UOM, "UniqueDeviceID", f"1e{code}-V{server}-C{m.server_slot}")
    if m.disk:
        disk = _child(_child(root, "Storage"), "VirtualDisk")
        if m.disk.tag:
            _text(disk, UOM, "Tag", m.disk.tag)
        _text(disk, UOM, "DiskCapacity", m.disk.capacity)
        _text(disk, UOM, "DiskLabel", m.disk.path)
        _text(disk, UOM, "DiskName", m.disk.path)
        _text(disk, UOM, "UniqueDeviceID", m.disk.udid)
        _text(disk, UOM, "VirtualDiskType", "File")
        _text(disk, UOM, "BackStoreType", "loop")
    if m.lua:
        kind = "VirtualOptical" if m.optical else "LogicalVolumeVirtual"
        target = _child(_child(root, "TargetDevice"), f"{kind}TargetDevice")
        _text(target, UOM, "LogicalUnitAddress", m.lua)
        _text(target, UOM, "TargetName", f"vtscsi{m.server_slot}-{m.lua}")
        _text(target, UOM, "UniqueDeviceID", f"{0x30000000 + m.server_slot:x}-{m.lua}")
    return root


def _adapter(e: Element, code: str, kind: str, partition: int, slot: int) -> None:
    """A server that NovaLink hosts itself names no vhost."""
    _text(e, UOM, "AdapterType", kind)
    for name in ("DynamicReconfigurationConnectorName", "LocationCode"):
        _text(e, UOM, name, f"{code}-V{partition}-C{slot}")
    _text(e, UOM, "LocalPartitionID", str(partition))
    _text(e, UOM, "VirtualSlotNumber", str(slot))


def _remote(e: Element, partition: int, slot: int) -> None:
    _text(e, UOM, "RemoteLogicalPartitionID", str(partition))
    _text(e, UOM, "RemoteSlotNumber", str(slot))


def job_request(kind: str, operation: str) -> Element:
    root = _object(WEB, "JobRequest")
    asked = etree.SubElement(root, f"{{{WEB}}}RequestedOperation", schemaVersion="V1_0")
    _metadata(asked, WEB)
    _text(asked, WEB, "OperationName", operation)
    _text(asked, WEB, "GroupName", kind)
    _metadata(etree.SubElement(root, f"{{{WEB}}}JobParameters", schemaVersion="V1_0"), WEB)
    return root


def job_response(
    ident: str, status: str, results: Mapping[str, str], exception: str = ""
) -> Element:
    root = _object(WEB, "JobResponse")
    _text(root, WEB, "JobID", ident)
    _text(root, WEB, "Status", status)
    if exception:
        told = etree.SubElement(root, f"{{{WEB}}}ResponseException", schemaVersion="V1_0")
        _metadata(told, WEB)
        _text(told, WEB, "Message", exception)
        _text(told, WEB, "StackTrace", f"{exception}\n\tat com.ibm.pmc.Job.run(Job.java:1)\n")
    group = etree.SubElement(root, f"{{{WEB}}}Results", schemaVersion="V1_0")
    for name, value in results.items():
        parameter = etree.SubElement(group, f"{{{WEB}}}JobParameter", schemaVersion="V1_0")
        _text(parameter, WEB, "ParameterName", name)
        _text(parameter, WEB, "ParameterValue", value)
    return root


def event(number: int, kind: str, data: str) -> Element:
    root = _object(UOM, "Event")
    _text(root, UOM, "EventType", kind)
    _text(root, UOM, "EventID", str(number))
    _text(root, UOM, "EventData", data)
    return root


# --- what clients send -------------------------------------------------------


def parse(body: bytes) -> Element:
    """Parse a request's body. Raises Rejected (400) if it is not XML."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True)
    try:
        return etree.fromstring(body, parser)
    except etree.XMLSyntaxError as error:
        raise Rejected(400, f"the body is not XML: {error}") from error


def text(element: Element, path: str) -> str:
    """The text at *path* (``w:UserID``), '' if there is none."""
    return element.findtext(path, "", _NS) or ""


def parameters(request: Element) -> dict[str, str]:
    """The parameters of a job request."""
    return {
        text(p, "w:ParameterName"): text(p, "w:ParameterValue")
        for p in request.iter(f"{{{WEB}}}JobParameter")
    }


def asked(server: Element) -> Sequence[Asked] | None:
    """The mappings of an updated server; None: the update is not about them."""
    group = server.find("u:VirtualSCSIMappings", _NS)
    if group is None:
        return None
    return [_asked(e) for e in group.iterfind("u:VirtualSCSIMapping", _NS)]


def _asked(e: Element) -> Asked:
    href = e.find("u:AssociatedLogicalPartition", _NS)
    found = re.search(
        r"LogicalPartition/([0-9A-Fa-f-]{36})", "" if href is None else href.get("href", "")
    )
    disk = e.find("u:Storage/u:VirtualDisk", _NS)
    client_slot = text(e, "u:ClientAdapter/u:VirtualSlotNumber")
    server_slot = text(e, "u:ServerAdapter/u:VirtualSlotNumber")
    given = text(e, "u:TargetDevice/*/u:UniqueDeviceID") or (
        disk is not None and text(disk, "u:UniqueDeviceID")
    )
    return Asked(
        client=found.group(1).upper() if found else "",
        client_slot=int(client_slot) if client_slot else None,
        server_slot=int(server_slot) if server_slot else None,
        path=None if disk is None else text(disk, "u:DiskLabel") or text(disk, "u:DiskName"),
        tag="" if disk is None else text(disk, "u:Tag"),
        lua=text(e, "u:TargetDevice/*/u:LogicalUnitAddress"),
        known=bool(given) or (disk is None and bool(server_slot)),
    )


# --- elements ----------------------------------------------------------------


def _object(ns: str, name: str, ident: str = "") -> Element:
    root = etree.Element(f"{{{ns}}}{name}", nsmap={None: ns}, schemaVersion="V1_0")
    _metadata(root, ns, ident)
    return root


def _metadata(parent: Element, ns: str, ident: str = "") -> None:
    atom = etree.SubElement(etree.SubElement(parent, f"{{{ns}}}Metadata"), f"{{{ns}}}Atom")
    if ident:
        _text(atom, ns, "AtomID", ident)


def _child(parent: Element, name: str, **attributes: str) -> Element:
    child = etree.SubElement(parent, f"{{{UOM}}}{name}", kb="CUR", kxe="false", **attributes)
    if "href" not in attributes and name not in ("Storage", "TargetDevice"):
        child.set("schemaVersion", "V1_0")
        _metadata(child, UOM)
    return child


def _text(parent: Element, ns: str, name: str, value: str) -> None:
    etree.SubElement(parent, f"{{{ns}}}{name}").text = value
