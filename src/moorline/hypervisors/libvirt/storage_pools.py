"""Asks libvirt's storage pools where the volumes lie that guests name by them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree as ET

from moorline.errors import Refused
from moorline.hypervisors.libvirt.connection import module
from moorline.model import Guest, Use
from moorline.network_disk import known_as

_NETWORK_POOLS = ("rbd", "sheepdog", "gluster", "iscsi-direct")
"""Types of pools whose volumes are not files of this host."""


def path_of_volume(virt: Any, pool: str, volume: str) -> str:
    """Where a volume lies, which a guest that runs has as its disk. Raises Refused: unknown."""
    try:
        path: str = virt.storagePoolLookupByName(pool).storageVolLookupByName(volume).path()
    except module().libvirtError as e:
        if not virt.isAlive():
            raise
        raise Refused(
            f"it is not known where volume {volume} of storage pool {pool} lies: {e}",
            hint=shlex.join(["virsh", "pool-refresh", pool]),
        ) from e
    return path


def listed(*words: str) -> str:
    """Those of *words* that say something, in one text."""
    return ", ".join(filter(None, words))


class Pools:
    """libvirt's storage pools, each asked once."""

    def __init__(self, virt: Any) -> None:
        self._virt = virt
        self._targets: dict[str, str | None] = {}

    def resolved(self, guest: Guest, volumes: Iterable[tuple[str, str]]) -> Guest:
        """*guest* with the paths of the volumes that it names."""
        for pool, volume in sorted(volumes):
            target = self._target(pool)
            if target and target.startswith("/"):
                path = os.path.normpath(f"{target}/{volume}")
                guest = replace(guest, paths=guest.paths | {path})
            elif target:
                use = Use(_known(target, volume), "")
                guest = replace(guest, uses=guest.uses | {use})
            elif target is None:
                what = f"volume {volume} of storage pool {pool}"
                guest = replace(guest, unresolved=listed(guest.unresolved, what))
        return guest

    def _target(self, pool: str) -> str | None:
        """The directory of the pool's volumes; '': not on this host; None: unknown.

        Of a server's pool, what its disks are known by begins so.
        """
        if pool not in self._targets:
            self._targets[pool] = self._asked(pool)
        return self._targets[pool]

    def _asked(self, pool: str) -> str | None:
        virt = module()
        try:
            xml = ET.fromstring(  # noqa: S314 - libvirt's own output
                self._virt.storagePoolLookupByName(pool).XMLDesc()
            )
        except (virt.libvirtError, ET.ParseError):
            if not self._virt.isAlive():
                raise
            return None
        target = xml.findtext("target/path", "")
        if target.startswith("/"):
            return target
        if xml.get("type") == "rbd":
            return f"rbd:{xml.findtext('source/name', '')}"
        device = xml.find("source/device")
        if xml.get("type") == "iscsi-direct" and device is not None:
            return f"iscsi:{device.get('path', '')}"
        return "" if xml.get("type") in _NETWORK_POOLS else None


def _known(pool: str, volume: str) -> str:
    """What a volume of a server's pool is known by. A unit of iSCSI is called unit:0:0:LUN."""
    protocol, _, name = pool.partition(":")
    unit = volume.rpartition(":")[2] if protocol == "iscsi" else volume
    return known_as(protocol, f"{name}/{unit}", ())
