"""Looks at domains: one thoroughly, or all of them at little more cost than their XML."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, TypeVar
from xml.etree import ElementTree as ET

from moorline.errors import Unavailable, Uncertain
from moorline.hypervisors.libvirt.blocked_disks import IO_ERROR, LIST_PAUSED, PAUSED
from moorline.hypervisors.libvirt.connection import module, names_of
from moorline.hypervisors.libvirt.domain_xml import INACTIVE, Domain, parse
from moorline.hypervisors.libvirt.logins import KnownLogins
from moorline.hypervisors.libvirt.qemu_open_files import OpenDisks
from moorline.hypervisors.libvirt.saved_files import Saved, SavedFiles
from moorline.hypervisors.libvirt.storage_pools import Pools, listed
from moorline.model import Guest, GuestId, VolumeId
from moorline.network_disk import is_known
from moorline.ports import Places

T = TypeVar("T")
_RUNNING = re.compile(r"<domain\b[^>]*\bid=")
"""libvirt gives an id to what runs."""


@dataclass(frozen=True, slots=True)
class _Definitions:
    """The XML of a domain's halves, as :class:`Domain` has them parsed."""

    live: str | None
    defined: str | None
    saved: str | None = None


class _Told(NamedTuple):
    """What the definitions of a domain tell a survey: see :class:`Domain`."""

    guest: Guest
    volumes: frozenset[tuple[str, str]]
    secrets: Mapping[VolumeId, str]


class _Read:
    """What was read of a domain. Its parsed XML, a thousand objects, goes once it has told all."""

    def __init__(self, definitions: _Definitions, domain: Domain) -> None:
        self.definitions = definitions
        self._source: Domain | _Told = domain

    def told(self) -> _Told:
        source = self._source  # another thread may put what it tells in its place meanwhile
        if isinstance(source, Domain):
            source = _Told(_guest(source), source.volumes(), source.secrets())
            self._source = source
        return source


@dataclass(frozen=True, slots=True)
class _Asked:
    """What two bulk calls tell of a domain that has no saved state."""

    now: str
    """Its XML."""
    persistent: bool
    """Whether it has a definition beside what runs, if it runs."""


@dataclass(frozen=True, slots=True)
class _Files:
    """Those of a domain, as they were before it was read."""

    name: str
    saved: Saved
    seen: float
    """When, by the monotonic clock."""


class _Unreadable(Exception):
    """A definition of a domain cannot be read."""

    def __init__(self, guest: Guest) -> None:
        super().__init__(guest.unreadable)
        self.guest = guest


class _Known(NamedTuple):
    """What was read of a domain, and its files as they were before: one goes with the other."""

    read: _Read
    files: _Files | None
    """None: they were not seen, or not believed."""


class GuestSurvey:
    """Surveys all guests. A definition is not parsed again while libvirt prints the same text.

    Guests can be looked at by other threads while one surveys them all.
    """

    def __init__(self, saved_files: SavedFiles | None = None) -> None:
        self._saved_files = saved_files
        self._known: dict[str, _Known] = {}
        self._doubtful: dict[str, float] = {}
        """Domains that changed at that time, which may not be saved yet."""

    def doubt(self, guest: GuestId) -> None:
        """The next survey asks about *guest*, whatever its files tell."""
        self._doubtful[guest] = time.monotonic()

    def look(self, domain: Any) -> Domain:
        """As :func:`look`; a survey need not ask again what it told."""
        name, seen = domain.name(), time.monotonic()
        files = self._saved_files.settled(domain.connect(), name) if self._saved_files else None
        with _of_one():
            definitions = _definitions(domain)
            parsed = _parsed(domain, definitions)
        if files:
            known = _Read(definitions, parsed)
            self._known[domain.UUIDString()] = _Known(known, _Files(name, files[name], seen))
        return parsed

    def guests(
        self, virt: Any, hang: frozenset[str] = frozenset(), *, afresh: bool = True
    ) -> Sequence[Guest]:
        """Look at all domains but those whose UUID or name is among *hang*.

        Those are not asked, which would hang, too. *afresh* False: nor are those whose files say
        that they are as they were read. Raises libvirt's errors if domains cannot
        be listed, Uncertain if what hangs is none of them.
        """
        # Before anything is asked: what changes meanwhile has another file the next time.
        now = time.monotonic()
        files = self._saved_files.settled(virt) if self._saved_files else None
        domains = virt.listAllDomains()
        silent = {each.UUIDString() for each in domains if hang and hang & names_of(each)}
        if hang and (lost := hang.difference(*map(names_of, domains))):
            raise Uncertain(f"libvirt does not answer about {', '.join(sorted(lost))}")
        # Two questions for all, instead of one for each that is stopped: who is
        # saved after both was seen running, with the same disks. None, where all run.
        saved = _saved(virt) if any(each.ID() < 0 for each in domains) else None
        known: dict[str, _Known] = {}
        if files and not afresh:
            known = self._unchanged(domains, files, silent | (saved or set()))
        first = [
            (each, uuid, self._silent(each) if uuid in silent else _told(each, each.XMLDesc))
            for each, uuid in ((each, each.UUIDString()) for each in domains)
            if uuid not in known
        ]
        told = {uuid: xml for _, uuid, xml in first if isinstance(xml, str)}
        running = {uuid for uuid, xml in told.items() if _RUNNING.match(xml)}
        # What stopped since it was listed is asked for its saved state by itself.
        saved = told.keys() - running if saved is None else saved | _saved(virt)
        persistent = _persistent(virt) if running else frozenset[str]()
        guests = [unchanged.read.told().guest for unchanged in known.values()]
        for each, uuid, xml in first:
            guest = xml
            if isinstance(xml, str):
                asked = None if uuid in saved else _Asked(xml, uuid in persistent)
                same = self._stopped_as_before(uuid, xml) if asked else None
                found = same or _told(each, partial(self._read, each, asked))
                guest = found.told().guest if isinstance(found, _Read) else found
                if isinstance(found, _Read):
                    known[uuid] = _Known(found, _files_of(each, files, now))
            if isinstance(guest, Guest):  # else it is gone since it was listed
                guests.append(guest)
        self._known = known | {uuid: self._known[uuid] for uuid in silent & self._known.keys()}
        pools = Pools(virt)
        read = {uuid: each.read.told() for uuid, each in known.items()}
        volumes = {uuid: each.volumes for uuid, each in read.items()}
        whole = [pools.resolved(guest, volumes.get(guest.id, ())) for guest in guests]
        logins, secrets = KnownLogins(virt), {uuid: each.secrets for uuid, each in read.items()}
        whole = [_with_logins(guest, logins, secrets.get(guest.id)) for guest in whole]
        paused = _paused_by_error(virt, silent) if running and afresh else frozenset[str]()
        return [replace(g, paused_by_error=True) if g.id in paused else g for g in whole]

    def _unchanged(
        self, domains: Iterable[Any], files: Mapping[str, Saved], but: Container[str]
    ) -> dict[str, _Known]:
        """Those that are as they were read: libvirt and their files say the same of them.

        *but*: those of which files do not tell all, or that cannot be asked.
        """
        found = {}
        for each in domains:
            uuid, name = each.UUIDString(), each.name()
            known, saved = self._known.get(uuid), files.get(name)
            if known is None or known.files is None or saved is None or uuid in but:
                continue
            had, then = known.read.definitions, known.files
            if (
                (then.name, then.saved) == (name, saved)
                and then.seen > self._doubtful.get(uuid, 0)
                and (each.ID() >= 0) == (saved.status is not None) == (had.live is not None)
                and (saved.definition is not None) == (had.defined is not None)
                and had.saved is None
            ):
                found[uuid] = known
        return found

    def _silent(self, domain: Any) -> Guest:
        """A domain that is not asked, with what it was last seen to have."""
        why = "an earlier call to libvirt about it still hangs"
        known = self._known.get(domain.UUIDString())
        guest = Guest(GuestId(domain.UUIDString()), domain.name(), True, {}, frozenset())
        if known is not None:
            guest = replace(known.read.told().guest, disks={})
        return replace(
            guest, unreadable=why, remedy=shlex.join(("virsh", "domjobinfo", guest.name))
        )

    def _stopped_as_before(self, uuid: str, xml: str) -> _Read | None:
        """What was read of a domain without a saved state, if it says the same as then.

        Its definition is all that it has: nothing else has to be asked.
        """
        known = self._known.get(uuid)
        if known is None or known.read.definitions != _Definitions(None, xml):
            return None
        return None if _RUNNING.match(xml) else known.read

    def _read(self, domain: Any, asked: _Asked | None) -> _Read:
        definitions = _definitions(domain, asked)
        known = self._known.get(domain.UUIDString())
        if known is not None and known.read.definitions == definitions:
            return known.read
        return _Read(definitions, _parsed(domain, definitions))


def _files_of(domain: Any, files: Mapping[str, Saved] | None, seen: float) -> _Files | None:
    name = domain.name()
    return _Files(name, files[name], seen) if files and name in files else None


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
    return replace(guest, paths=paths, unresolved=listed(guest.unresolved, *unknown))


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
    with _of_one():
        return _parsed(virt, _definitions(virt))


@contextmanager
def _of_one() -> Iterator[None]:
    """Raise Unavailable for a definition that is there and cannot be read."""
    try:
        yield
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
    live = domain.live.uses if domain.live is not None else ()
    opened = frozenset(use.path for use in live if is_known(use.path))
    found = Guest(
        GuestId(domain.uuid), domain.name, running, disks, paths, uses=uses, opened=opened
    )
    return replace(found, unresolved=domain.unresolved())


def _with_logins(
    guest: Guest, logins: KnownLogins, secrets: Mapping[VolumeId, str] | None
) -> Guest:
    if not secrets:
        return guest
    return replace(guest, disks=logins.marked(guest.id, guest.disks, secrets))


def _saved(virt: Any) -> set[str]:
    flag = module().VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE
    return {each.UUIDString() for each in virt.listAllDomains(flag)}


def _paused_by_error(virt: Any, silent: Container[str]) -> frozenset[str]:
    """Which domains an error of a disk's paused. Of which disk, QEMU is not asked: it may hang."""
    found = set()
    for each in virt.listAllDomains(LIST_PAUSED):
        if (uuid := each.UUIDString()) not in silent:
            with suppress(module().libvirtError):  # since it was listed it went
                if tuple(each.state()) == (PAUSED, IO_ERROR):
                    found.add(uuid)
    return frozenset(found)


def _persistent(virt: Any) -> frozenset[str]:
    """Which of the running domains have a definition, by one call for all."""
    flag = module().VIR_CONNECT_LIST_DOMAINS_PERSISTENT
    return frozenset(each.UUIDString() for each in virt.listAllDomains(flag))
