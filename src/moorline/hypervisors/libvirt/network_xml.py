"""Reads and makes the ``<source>`` of disks that QEMU reaches by the network. Pure.

https://libvirt.org/formatdomain.html#hard-drives-floppy-disks-cdroms
"""

from __future__ import annotations

from xml.etree import ElementTree as ET

from moorline.errors import Refused
from moorline.model import DiskOptions, NetworkDisk
from moorline.network_disk import PORTS, known_as, server

_SECRETS = {"iscsi": "iscsi", "rbd": "ceph"}
"""What libvirt calls the secrets for a protocol."""


def known(source: ET.Element) -> str:
    """What the disk of a ``<source protocol=…>`` is known by, whoever's guest has it."""
    protocol = source.get("protocol", "")
    servers = [_server(host, protocol) for host in source.iterfind("host")]
    return known_as(protocol, source.get("name", ""), servers)


def add_source(disk: ET.Element, source: NetworkDisk, secret: str) -> ET.Element:
    """Add to *disk* where QEMU finds it. *secret*: the UUID of libvirt's, if it takes one."""
    called, at, snapshot = source.name.partition("@" if source.protocol == "rbd" else "\0")
    element = ET.SubElement(disk, "source", protocol=source.protocol, name=called)
    if source.tls:
        element.set("tls", "yes")
    for each in source.servers:
        name, _, port = each.rpartition(":")
        where = {"transport": "unix", "socket": each}
        if not each.startswith("/"):
            where = {"name": name.strip("[]"), "port": port}
        ET.SubElement(element, "host", where)
    if at:
        ET.SubElement(element, "snapshot", name=snapshot)
    if source.login is not None:
        auth = ET.SubElement(element, "auth", username=source.login.user)
        ET.SubElement(auth, "secret", type=_SECRETS[source.protocol], uuid=secret)
    if source.initiator:
        ET.SubElement(ET.SubElement(element, "initiator"), "iqn", name=source.initiator)
    return element


def secret_of(disk: ET.Element) -> str:
    """The UUID of the secret that its server is told, wherever libvirt prints it; ''."""
    found = next(disk.iterfind("source/auth/secret"), disk.find("auth/secret"))
    return "" if found is None else found.get("uuid", "")


def is_on_a_socket(source: ET.Element) -> bool:
    """Whether it is reached by a socket of this host, which no other host has."""
    return any(host.get("transport") == "unix" for host in source.iterfind("host"))


def refuse_unfit(source: NetworkDisk, options: DiskOptions) -> None:
    """Refuse options that are for files and devices alone, or not the server's. Raises Refused."""
    if source.readonly and not options.readonly:
        raise Refused(f"the server lets nobody write to {source.path}", hint="--read-only")
    if options.startup_policy:
        raise Refused("libvirt has no startup policy for disks of the network")
    if options.io:
        raise Refused("how I/O is done can be chosen for files and devices alone, not for a server")


def _server(host: ET.Element, protocol: str) -> str:
    if host.get("transport") == "unix":
        return host.get("socket", "")
    return server(host.get("name", ""), int(host.get("port") or PORTS.get(protocol, 0)))
