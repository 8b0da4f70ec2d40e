"""What libvirt tells QEMU to open a disk with: a key, a password. In libvirtd's memory alone.

Each is ephemeral (libvirtd writes it to no file, and has lost it once it is restarted) and private
(libvirtd tells it to QEMU, and to nobody who asks). It is found again by what it is for: its UUID
is derived from that, and its usage, which others see, begins with our name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple
from uuid import UUID, uuid5
from xml.etree import ElementTree as ET

from moorline.errors import NotOurs
from moorline.hypervisors.libvirt.connection import Connection, NoGuest, module
from moorline.hypervisors.libvirt.domain_xml import marked_as
from moorline.model import GuestId, VolumeId
from moorline.secret import Secret

Kind = Literal["volume", "ceph", "iscsi"]
"""What libvirt asks for it by: a LUKS key, a cephx key, a CHAP password."""
_USAGES: dict[Kind, str] = {"volume": "volume", "ceph": "name", "iscsi": "target"}
"""The kinds, and the element in which libvirt has the name of each."""
_NAMESPACE = UUID("5d4b3ac8-0f0f-4e0c-9c0e-6f1d7c1a6b52")
_NO_VALUE = "its value is to come"
"""Told by a secret that has no value yet: whoever defined it was killed before it had one."""


class Purpose(NamedTuple):
    """The disk that a secret is for. Each has its own, so that each goes with its disk."""

    guest: GuestId
    volume: VolumeId
    kind: Kind = "volume"

    @property
    def uuid(self) -> str:
        """By which the disk's XML, and we, find it."""
        return str(uuid5(_NAMESPACE, f"{self.kind} {self.guest} {self.volume}"))

    @property
    def usage(self) -> str:
        """What `virsh secret-list` tells of it."""
        return f"moorline {self.guest} {self.volume}"


def named_by(guest: GuestId, domain: ET.Element) -> Mapping[str, VolumeId]:
    """The UUIDs of the secrets of ours that disks of *guest* are opened with, and whose they are.

    Those of whoever plugged a disk that was adopted are theirs.
    """
    found: dict[str, VolumeId] = {}
    for disk in domain.iterfind("devices/disk"):
        named = {secret.get("uuid", "") for secret in disk.iter("secret")}
        if named and (volume := marked_as(disk)):
            ours = {Purpose(guest, volume, kind).uuid for kind in _USAGES}
            found |= dict.fromkeys(ours & named, volume)
    return found


class Secrets:
    """The secrets that are ours."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def has(self, purpose: Purpose) -> bool:
        """Whether it is there, with a value. Raises NotOurs, Unavailable, Uncertain."""
        return self._connection.look(_SECRETS, lambda virt: has_value(_found(virt, purpose)))

    def keep(self, purpose: Purpose, value: Secret[bytes]) -> None:
        """Have libvirt know it. There already, with any value, is success, and it has this one.

        Raises NotOurs, Refused, Failed, Uncertain.
        """
        self._connection.change(_SECRETS, lambda virt: _keep(virt, purpose, value))

    def drop(self, purpose: Purpose) -> None:
        """Have libvirt forget it; its absence is success. Who has the disk open keeps it.

        Raises NotOurs, Failed, Uncertain.
        """
        self._connection.change(_SECRETS, lambda virt: _drop(virt, purpose))


_SECRETS = NoGuest("secrets")


def _keep(virt: Any, purpose: Purpose, value: Secret[bytes]) -> None:
    _found(virt, purpose)  # one of somebody else's is left alone
    # libvirt tells nobody whether a private one has a value: its description does.
    virt.secretDefineXML(_xml(purpose, _NO_VALUE)).setValue(value.reveal())
    virt.secretDefineXML(_xml(purpose, ""))


def _drop(virt: Any, purpose: Purpose) -> None:
    libvirt = module()
    try:
        if (found := _found(virt, purpose)) is not None:
            found.undefine()
    except libvirt.libvirtError as e:
        if e.get_error_code() != libvirt.VIR_ERR_NO_SECRET:  # somebody was faster
            raise


def _found(virt: Any, purpose: Purpose) -> Any | None:
    """libvirt's secret for *purpose*; None: there is none. Raises NotOurs."""
    libvirt = module()
    try:
        found = virt.secretLookupByUUIDString(purpose.uuid)
    except libvirt.libvirtError as e:
        if e.get_error_code() == libvirt.VIR_ERR_NO_SECRET:
            return None
        raise
    if found.usageID() != purpose.usage:
        raise NotOurs(
            f"libvirt's secret {purpose.uuid} is not Moorline's",
            hint=f"virsh secret-dumpxml {purpose.uuid}",
        )
    return found


def has_value(secret: Any | None) -> bool:
    """Whether libvirt's *secret* is there, and is not one that nobody came to fill."""
    libvirt = module()
    try:
        return secret is not None and f">{_NO_VALUE}<" not in secret.XMLDesc()
    except libvirt.libvirtError as e:
        if e.get_error_code() == libvirt.VIR_ERR_NO_SECRET:  # it went since it was found
            return False
        raise


def _xml(purpose: Purpose, description: str) -> str:
    secret = ET.Element("secret", ephemeral="yes", private="yes")
    ET.SubElement(secret, "uuid").text = purpose.uuid
    if description:
        ET.SubElement(secret, "description").text = description
    usage = ET.SubElement(secret, "usage", type=purpose.kind)
    ET.SubElement(usage, _USAGES[purpose.kind]).text = purpose.usage
    return ET.tostring(secret, encoding="unicode")
