"""Looks at domains: one thoroughly, or all of them at little more cost than their XML."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar
from xml.etree import ElementTree as ET

from moorline.errors import Unavailable, Uncertain
from moorline.hypervisors.libvirt.connection import module, names_of
from moorline.hypervisors.libvirt.domain_xml import Domain, parse
from moorline.hypervisors.libvirt.qemu_open_files import OpenDisks
from moorline.model import Guest, GuestId
from moorline.ports import Places

T = TypeVar("T")
INACTIVE = 2
"""VIR_DOMAIN_XML_INACTIVE"""
_NETWORK_POOLS = ("rbd", "sheepdog", "gluster", "iscsi-direct")
"""Types of pools whose volumes are not files of this host."""
_RUNNING = re.compile(r"<domain\b[^>]*\bid=")
"""libvirt gives an id to what runs."""


@dataclass(frozen=True, slots=True)
class _Definitions:
    """The XML of a domain's halves, as :class:`Domain` has them parsed."""

    live: str | None
    defined: str | None
    saved: str | None = None


@dataclass(frozen=True, slots=True)
class _Read:
    """What was parsed of a domain."""

    definitions: _Definitions
    guest: Guest
    volumes: frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class _Asked:
    """What two bulk calls tell of a domain that has no saved state."""

    now: str
    """Its XML."""
    persistent: bool
    """Whether it has a definition beside what runs, if it runs."""


class _Unreadable(Exception):
    """A definition of a domain cannot be read."""

    def __init__(self, guest: Guest) -> None:
        super().__init__(guest.unreadable)
        self.guest = guest


class Survey:
    """Surveys all guests. A definition is not parsed again while libvirt prints the same text."""

    def __init__(self) -> None:
        self._read: dict[str, _Read] = {}

    def guests(self, virt: Any, hang: frozenset[str] = frozenset()) -> Sequence[Guest]:
        """Look at all domains but those whose UUID or name is among *hang*.

        Those are not asked, which would hang, too. Raises libvirt's errors if domains cannot
        be listed, Uncertain if what hangs is none of them.
        """
        domains = virt.listAllDomains()
        silent = {each.UUIDString() for each in domains if hang and hang & names_of(each)}
        if hang and (lost := hang.difference(*map(names_of, domains))):
            raise Uncertain(f"libvirt does not answer about {', '.join(sorted(lost))}")
        # Two questions for all, instead of one for each that is stopped: who is
        # saved after both was seen running, with the same disks. None, where all run.
        saved = _saved(virt) if any(each.ID() < 0 for each in domains) else None
        first = [
            (each, uuid, self._silent(each) if uuid in silent else _told(each, each.XMLDesc))
            for each, uuid in ((each, each.UUIDString()) for each in domains)
        ]
        told = {uuid: xml for _, uuid, xml in first if isinstance(xml, str)}
        running = {uuid for uuid, xml in told.items() if _RUNNING.match(xml)}
        # What stopped since it was listed is asked for its saved state by itself.
        saved = told.keys() - running if saved is None else saved | _saved(virt)
        persistent = _persistent(virt) if running else frozenset[str]()
        read: dict[str, _Read] = {}
        guests = []
        pools = _Pools(virt)
        for each, uuid, xml in first:
            guest = xml
            if isinstance(xml, str):
                if uuid not in saved and (same := self._stopped_as_before(uuid, xml)):
                    read[uuid], guest = same, same.guest
                else:
                    asked = None if uuid in saved else _Asked(xml, uuid in persistent)
                    guest = _told(each, partial(self._guest, each, asked, read))
            if isinstance(guest, Guest):  # else it is gone since it was listed
                named = read.get(guest.id)
                guests.append(pools.resolved(guest, named.volumes) if named else guest)
        self._read = read | {uuid: self._read[uuid] for uuid in silent & self._read.keys()}
        return guests

    def _silent(self, domain: Any) -> Guest:
        """A domain that is not asked, with what it was last seen to have."""
        why = "an earlier call to libvirt about it still hangs"
        known = self._read.get(domain.UUIDString())
        guest = Guest(GuestId(domain.UUIDString()), domain.name(), True, {}, frozenset())
        if known is not None:
            guest = replace(known.guest, disks={})
        return replace(
            guest, unreadable=why, remedy=shlex.join(("virsh", "domjobinfo", guest.name))
        )

    def _stopped_as_before(self, uuid: str, xml: str) -> _Read | None:
        """What was read of a domain without a saved state, if it says the same as then.

        Its definition is all that it has: nothing else has to be asked.
        """
        known = self._read.get(uuid)
        if known is None or known.definitions.defined != xml or _RUNNING.match(xml):
            return None
        only = known.definitions.live is None and known.definitions.saved is None
        return known if only else None

    def _guest(self, domain: Any, asked: _Asked | None, read: dict[str, _Read]) -> Guest:
        """Look at a domain, and put what was found into *read*."""
        uuid = domain.UUIDString()
        definitions = _definitions(domain, asked)
        known = self._read.get(uuid)
        if known is None or known.definitions != definitions:
            parsed = _parsed(domain, definitions)
            known = _Read(definitions, _guest(parsed), parsed.volumes())
        read[uuid] = known
        return known.guest


def as_named(paths: Iterable[str]) -> Mapping[str, frozenset[str] | None]:
    """Follow no path: for programs that only plug disks and never remove a link."""
    return {path: frozenset({path}) for path in paths}


def located(guests: Sequence[Guest], places: Places) -> list[Guest]:
    """*guests*, with all paths that their paths lead to.

    Paths of marked disks are not followed: they were checked to be files on their link before.
    """
    marked = {guest.id: {disk.source for disk in guest.disks.values()} for guest in guests}
    known = places(path for guest in guests for path in guest.paths - marked[guest.id])
    return [_located(guest, known) for guest in guests]


def _located(guest: Guest, known: Mapping[str, frozenset[str] | None]) -> Guest:
    led = {path: known[path] for path in guest.paths if path in known}
    paths = guest.paths.union(*(places for places in led.values() if places))
    unknown = sorted(path for path, places in led.items() if places is None)
    if paths == guest.paths and not unknown:
        return guest
    return replace(guest, paths=paths, unresolved=_list(guest.unresolved, *unknown))


class _Pools:
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
                guest = replace(guest, unresolved=_list(guest.unresolved, what))
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


def _list(*words: str) -> str:
    return ", ".join(filter(None, words))


def as_it_runs(guest: Guest, places: Places) -> Guest:
    """*guest* with what no definition tells: which of its disks it has not open as they are named.

    *places*: as of :class:`OpenDisks`.
    """
    if not guest.running:
        return guest
    return replace(guest, disks=OpenDisks(guest.name, guest.disks, places))


def look(virt: Any) -> Domain:
    """Look at all definitions of a domain, in as few calls as tell them apart.

    Raises libvirt's errors, Unavailable (a definition is there and cannot be read).
    """
    try:
        return _parsed(virt, _definitions(virt))
    except _Unreadable as e:
        told = f"guest {e.guest.name} cannot be read: {e.guest.unreadable}"
        raise Unavailable(told, hint=e.guest.remedy) from e


def _told(domain: Any, ask: Callable[[], T]) -> T | Guest | None:
    """The answer to *ask*. A Guest: the domain cannot be read; None: it went since it was listed.

    Raises libvirt's errors if the connection broke.
    """
    virt = module()
    try:
        with _reading(domain):
            return ask()
    except _Unreadable as e:
        return e.guest
    except virt.libvirtError as e:
        if e.get_error_code() != virt.VIR_ERR_NO_DOMAIN:
            raise
        return None


@contextmanager
def _reading(domain: Any, defined: str = "") -> Iterator[None]:
    """Raise _Unreadable for what libvirt cannot print of a domain that is there.

    *defined*: the definition that was printed, where its saved state is read.
    """
    virt = module()
    try:
        yield
    except virt.libvirtError as e:
        if e.get_error_code() == virt.VIR_ERR_NO_DOMAIN or not domain.connect().isAlive():
            raise
        raise _Unreadable(_unreadable(domain, str(e), defined)) from e
    except ET.ParseError as e:
        raise _Unreadable(_unreadable(domain, f"its XML is broken: {e}", defined)) from e


def _unreadable(domain: Any, why: str, defined: str) -> Guest:
    guest = Guest(GuestId(domain.UUIDString()), domain.name(), True, {}, frozenset(), why)
    verb = "dumpxml"
    if defined:
        # It is stopped: what it has now is known, but not what it has when it is started.
        verb = "managedsave-remove"
        why = f"its saved state is broken: {why}"
        with suppress(ET.ParseError):
            guest = replace(guest, running=False, paths=parse(defined).paths)
    return replace(guest, unreadable=why, remedy=shlex.join(("virsh", verb, guest.name)))


def _definitions(virt: Any, asked: _Asked | None = None) -> _Definitions:
    with _reading(virt):
        now = asked.now if asked else virt.XMLDesc()
        if _RUNNING.match(now):
            persistent = asked.persistent if asked else virt.isPersistent()
            return _Definitions(now, virt.XMLDesc(INACTIVE) if persistent else None)
        saved = asked is None and virt.hasManagedSaveImage()
    with _reading(virt, now):
        return _Definitions(None, now, virt.managedSaveGetXMLDesc() if saved else None)


def _parsed(virt: Any, definitions: _Definitions) -> Domain:
    with _reading(virt):
        live, defined = (
            None if xml is None else parse(xml) for xml in (definitions.live, definitions.defined)
        )
    with _reading(virt, definitions.defined or ""):
        saved = None if definitions.saved is None else parse(definitions.saved)
    name = next(half.name for half in (live, defined) if half is not None)
    return Domain(virt.UUIDString(), name, live, defined, saved)


def _guest(domain: Domain) -> Guest:
    running = domain.live is not None
    disks, paths, uses = domain.disks(), domain.paths(), domain.uses()
    found = Guest(GuestId(domain.uuid), domain.name, running, disks, paths, uses=uses)
    return replace(found, unresolved=domain.unresolved())


def _saved(virt: Any) -> set[str]:
    flag = module().VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE
    return {each.UUIDString() for each in virt.listAllDomains(flag)}


def _persistent(virt: Any) -> frozenset[str]:
    """Which of the running domains have a definition, by one call for all."""
    flag = module().VIR_CONNECT_LIST_DOMAINS_PERSISTENT
    return frozenset(each.UUIDString() for each in virt.listAllDomains(flag))
