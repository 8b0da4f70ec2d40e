"""The passwords of servers that guests' disks are opened with, in libvirtd for as long.

libvirtd has lost them once it is restarted. A running guest goes on without, and could not be
started again: its disk is told as locked until they are given anew.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from typing import Any

from moorline.errors import Failed, MoorlineError, Refused
from moorline.hypervisors.libvirt.connection import Connection
from moorline.hypervisors.libvirt.domain_xml import Domain, MarkedDisk
from moorline.hypervisors.libvirt.secrets import Kind, Purpose, Secrets, has_value
from moorline.model import (
    BlockDevice,
    Disk,
    DiskSource,
    GuestId,
    ImageFile,
    NetworkDisk,
    VolumeId,
)
from moorline.network_disk import NetworkLogin, Protocol
from moorline.secret import Secret

_KINDS: Mapping[Protocol, Kind] = {"iscsi": "iscsi", "rbd": "ceph"}


def secret_of(guest: GuestId, volume: VolumeId, source: DiskSource) -> str:
    """The UUID of the secret that *source* is opened with; '': it takes none."""
    if isinstance(source, ImageFile | BlockDevice) and source.format == "luks":
        return Purpose(guest, volume).uuid
    purpose = _purpose(guest, volume, source)
    return purpose.uuid if purpose else ""


def purpose_of(guest: GuestId, volume: VolumeId, disk: MarkedDisk) -> Purpose | None:
    """What the secret is for that a guest's disk names; None: it names none of ours."""
    return _ours(guest, volume, disk.secret)


class Logins:
    """Keeps the password of a disk in libvirtd, from before it is plugged until it is gone."""

    def __init__(self, connection: Connection) -> None:
        self._secrets = Secrets(connection)

    @contextmanager
    def kept(self, domain: Domain, volume: VolumeId, source: DiskSource) -> Iterator[None]:
        """Have libvirt know it; not any more if the guest then surely does not get the disk.

        Raises as :meth:`Secrets.keep`.
        """
        purpose = _purpose(GuestId(domain.uuid), volume, source)
        if purpose is None or not isinstance(source, NetworkDisk) or source.login is None:
            yield
            return
        self._secrets.keep(purpose, _bytes(source.login, purpose.kind))
        try:
            yield
        except (Refused, Failed):
            if not any(volume in half.disks for half in domain.halves()):
                with suppress(MoorlineError):  # what went wrong first is told
                    self._secrets.drop(purpose)
            raise

    def drop(self, domain: Domain, volume: VolumeId) -> None:
        """Have libvirt forget what *domain* had the disk with. Raises as :meth:`Secrets.drop`."""
        disks = [half.disks[volume] for half in domain.halves() if volume in half.disks]
        purposes = {purpose_of(GuestId(domain.uuid), volume, disk) for disk in disks}
        for purpose in filter(None, purposes):
            self._secrets.drop(purpose)


class KeepsLogins:
    """See :class:`moorline.ports.LoginKeeping`."""

    _secrets: Secrets

    def has_login(self, guest: GuestId, volume: VolumeId, source: NetworkDisk) -> bool:
        purpose = _purpose(guest, volume, source)
        return purpose is None or self._secrets.has(purpose)

    def give_login(self, guest: GuestId, volume: VolumeId, source: NetworkDisk) -> None:
        purpose = _purpose(guest, volume, source)
        if purpose is not None and source.login is not None:
            self._secrets.keep(purpose, _bytes(source.login, purpose.kind))

    def take_login(self, guest: GuestId, volume: VolumeId) -> None:
        for kind in _KINDS.values():
            self._secrets.drop(Purpose(guest, volume, kind))


class KnownLogins:
    """The secrets that libvirtd has at the moment, asked once and only if it matters."""

    def __init__(self, virt: Any) -> None:
        self._virt = virt

    @cached_property
    def _known(self) -> Mapping[str, Any]:
        return {each.UUIDString(): each for each in self._virt.listAllSecrets()}

    def marked(
        self, guest: GuestId, disks: Mapping[VolumeId, Disk], secrets: Mapping[VolumeId, str]
    ) -> Mapping[VolumeId, Disk]:
        """*disks*, those locked that name a secret of ours which libvirtd has not, or not filled.

        One of whoever plugged a disk that was adopted is theirs to give.
        """
        ours = {v: s for v, s in secrets.items() if _ours(guest, v, s) is not None}
        found = {volume: self._known.get(secret) for volume, secret in ours.items()}
        lost = {volume for volume, secret in found.items() if not has_value(secret)}
        if not lost:
            return disks
        return {v: replace(d, locked=True) if v in lost else d for v, d in disks.items()}


def _ours(guest: GuestId, volume: VolumeId, secret: str) -> Purpose | None:
    """What *secret*, a UUID, is for; None: it is none of ours."""
    found = (Purpose(guest, volume, kind) for kind in _KINDS.values())
    return next((each for each in found if each.uuid == secret), None)


def _purpose(guest: GuestId, volume: VolumeId, source: DiskSource) -> Purpose | None:
    if not isinstance(source, NetworkDisk) or source.login is None:
        return None
    return Purpose(guest, volume, _KINDS[source.protocol])


def _bytes(login: NetworkLogin, kind: Kind) -> Secret[bytes]:
    """What libvirt is given. Raises Refused."""
    text = login.password.reveal()
    if kind != "ceph":
        return Secret(text.encode())
    try:
        return Secret(base64.b64decode(text, validate=True))
    except binascii.Error:
        raise Refused("the key is not as a keyring of Ceph has it, in base64") from None
