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
from moorline.model import Guest

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
            if target:
                path = os.path.normpath(f"{target}/{volume}")
                guest = replace(guest, paths=guest.paths | {path})
            elif target is None:
                what = f"volume {volume} of storage pool {pool}"
                guest = replace(guest, unresolved=listed(guest.unresolved, what))
        return guest

    def _target(self, pool: str) -> str | None:
        """The directory of the pool's volumes; '': not on this host; None: unknown."""
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
        return "" if xml.get("type") in _NETWORK_POOLS else None
