"""Looks at domains: one thoroughly, or all of them at little more cost than their XML."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from moorline.hypervisors.libvirt.connection import module
from moorline.hypervisors.libvirt.domain import Domain, parse
from moorline.model import Guest, GuestId

T = TypeVar("T")
INACTIVE = 2
"""VIR_DOMAIN_XML_INACTIVE"""
_RUNNING = re.compile(r"<domain\b[^>]*\bid=")
"""libvirt gives an id to what runs."""


@dataclass(frozen=True, slots=True)
class _Definitions:
    """The XML of a domain's halves, as :class:`Domain` has them parsed."""

    live: str | None
    defined: str | None
    saved: str | None = None


class Survey:
    """Every guest. What is read of a definition is kept while libvirt prints the same text."""

    def __init__(self) -> None:
        self._read: dict[str, tuple[_Definitions, Guest]] = {}

    def guests(self, virt: Any) -> Sequence[Guest]:
        """Look at all domains. Raises libvirt's errors."""
        # Two questions for all, instead of one for each that is stopped: who is
        # saved after both was seen running, with the same disks.
        saved = _saved(virt)
        first = {each: _unless_gone(each.XMLDesc) for each in virt.listAllDomains()}
        saved |= _saved(virt)
        read = {}
        for each, xml in first.items():
            uuid = each.UUIDString()
            read_all = partial(_definitions, each, None if uuid in saved else xml)
            if xml is not None and (definitions := _unless_gone(read_all)) is not None:
                read[uuid] = definitions, self._guest(uuid, definitions)
        self._read = read
        return [guest for _, guest in read.values()]

    def _guest(self, uuid: str, definitions: _Definitions) -> Guest:
        known = self._read.get(uuid)
        if known is not None and known[0] == definitions:
            return known[1]
        domain = _parsed(uuid, definitions)
        return Guest(
            GuestId(uuid),
            domain.name,
            domain.live is not None,
            domain.disks(),
            domain.paths(),
        )


def look(virt: Any) -> Domain:
    """Look at all definitions of a domain, in as few calls as tell them apart."""
    return _parsed(virt.UUIDString(), _definitions(virt, None))


def _definitions(virt: Any, unsaved: str | None) -> _Definitions:
    """*unsaved*: the XML of a domain that is known to have no saved state."""
    now = unsaved or virt.XMLDesc()
    if _RUNNING.match(now):
        return _Definitions(now, virt.XMLDesc(INACTIVE) if virt.isPersistent() else None)
    saved = not unsaved and virt.hasManagedSaveImage()
    return _Definitions(None, now, virt.managedSaveGetXMLDesc() if saved else None)


def _parsed(uuid: str, definitions: _Definitions) -> Domain:
    live, defined, saved = (
        None if xml is None else parse(xml)
        for xml in (definitions.live, definitions.defined, definitions.saved)
    )
    name = next(half.name for half in (live, defined) if half is not None)
    return Domain(uuid, name, live, defined, saved)


def _saved(virt: Any) -> set[str]:
    flag = module().VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE
    return {each.UUIDString() for each in virt.listAllDomains(flag)}


def _unless_gone(ask: Callable[[], T]) -> T | None:
    """What is answered; None: the domain is gone since it was listed."""
    virt = module()
    try:
        return ask()
    except virt.libvirtError as e:
        if e.get_error_code() != virt.VIR_ERR_NO_DOMAIN:
            raise
        return None
