"""Handles of libvirt's domains. A handle names a domain: it tells nothing of what that is now."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moorline.errors import NotFound, Refused
from moorline.hypervisors.libvirt.connection import module
from moorline.model import GuestId, GuestName, as_uuid

_MAX_HANDLES = 4096


class Handles:
    """Those that were asked for, each with the connection that it is of. Thread-safe."""

    def __init__(self) -> None:
        self._known: dict[tuple[GuestId, int], Any] = {}
        """By the guest, and which connection: another may have had the same number before."""

    def of(self, virt: Any, guest: GuestId) -> Any:
        """A domain's handle. Raises libvirt's errors."""
        handle = self._known.get((guest, id(virt)))
        if handle is None or handle.connect() is not virt:
            handle = self._kept(virt, guest, virt.lookupByUUIDString(guest))
        return handle

    def find(self, virt: Any, guest: str) -> GuestName:
        """Find a domain by name or UUID. Raises NotFound, Refused (it is both)."""
        by_name = _lookup(virt.lookupByName, guest)
        by_uuid = _lookup(virt.lookupByUUIDString, as_uuid(guest))
        if by_name and by_uuid and by_name.UUID() != by_uuid.UUID():
            raise Refused(f"{guest} is the name of one guest and the UUID of another")
        found = by_name or by_uuid
        if found is None:
            raise NotFound(f"there is no guest {guest}")
        id = GuestId(found.UUIDString())
        return GuestName(id, self._kept(virt, id, found).name())

    def _kept(self, virt: Any, guest: GuestId, handle: Any) -> Any:
        if len(self._known) >= _MAX_HANDLES:
            self._known.clear()
        self._known[guest, id(virt)] = handle
        return handle


def _lookup(by: Callable[[str], Any], text: str) -> Any | None:
    libvirt = module()
    try:
        return by(text) if text else None
    except libvirt.libvirtError as e:
        if e.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
            raise
    except ValueError:
        pass  # no name has a NUL in it, or is no UTF-8
    return None
