"""The fleet's store, read as records; and changes of it that are made as a whole or not at all."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol, TypeVar
from urllib.parse import unquote

from moorline.errors import Unavailable
from moorline.fleet import keys
from moorline.fleet.records import (
    Assignment,
    Decision,
    GuestOwner,
    GuestReport,
    Heartbeat,
    Held,
    HostEvent,
    HostRecord,
    Move,
    OwnClaim,
    Stored,
    VolumeOwner,
    VolumeReport,
)
from moorline.model import Attachment, GuestId, Key, VolumeId
from moorline.ports import At, AttachmentCodec, Delete, Put, Store

R = TypeVar("R", bound=Stored)

MAX_VOLUMES_PER_GUEST = 40
"""Of one guest: all of them go to another host in one commit, of at most 100 operations."""


class Vault(Protocol):
    """Seals guests' definitions, each to the host of its key; they may hold passwords."""

    def seal(self, at: str, definition: bytes) -> bytes:
        """Return what may be stored as *at*."""

    def open(self, at: str, sealed: bytes) -> bytes:
        """Return what was sealed as *at*. Raises Unavailable if it is not for us."""

    def fits(self, at: str, sealed: bytes) -> bool:
        """Whether it is for all who are to open it now. Raises Refused: nobody is to."""


@dataclass(slots=True)
class Change:
    """Operations that are committed together, and what must not have changed since it was read."""

    when: dict[str, At] = field(default_factory=dict)
    then: dict[str, Put | Delete] = field(default_factory=dict)

    def expect(self, key: str, record: Stored | Attachment | None) -> None:
        """Demand that *key* is as *record* was read; None: that there is none."""
        self.when[key] = At(key, record.revision if record else 0)

    def put(self, key: str, record: Stored | bytes) -> None:
        """Write *key*."""
        self.then[key] = Put(key, record if isinstance(record, bytes) else record.encode())

    def replace(self, key: str, before: Stored | None, after: Stored) -> None:
        """Write *key*, if it is as *before* was read."""
        self.expect(key, before)
        self.put(key, after)

    def note(self, step: str, host: str, message: str = "", *, guest: str = "") -> None:
        """Write down for people what this decides; see :class:`Decision`."""
        at = time.time_ns()
        said = Decision(at=at / 1e9, step=step, host=host, guest=guest, message=message)
        self.put(keys.decision(at, uuid.uuid4().hex[:8]), said)

    def delete(self, key: str, before: Stored | Attachment | None = None) -> None:
        """Remove *key*, if it is as *before* was read, where that is given."""
        if before is not None:
            self.expect(key, before)
        self.then[key] = Delete(key)


@dataclass(frozen=True, slots=True)
class Unread:
    """An attachment that is wanted, and cannot be read: which it is is known, and no more."""

    revision: int
    why: str
    """With what a person can do."""


@dataclass(slots=True)
class OfHost:
    """What is wanted of one host, or what it reports."""

    assignments: dict[GuestId, Assignment] = field(default_factory=dict)
    attachments: dict[tuple[GuestId, VolumeId], Attachment] = field(default_factory=dict)
    guests: dict[GuestId, GuestReport] = field(default_factory=dict)
    volumes: dict[tuple[GuestId, VolumeId], VolumeReport] = field(default_factory=dict)
    unread: dict[tuple[GuestId, VolumeId], Unread] = field(default_factory=dict)
    """Only where they were asked for: nobody else may take them for absent."""

    def spoken_of(self) -> set[tuple[GuestId, VolumeId]]:
        """The attachments that the fleet says anything of, also what cannot be read."""
        return {*self.attachments, *self.unread}

    def attachments_of(self, guest: GuestId) -> Mapping[VolumeId, Attachment]:
        """Those of one guest."""
        return {volume: row for (of, volume), row in self.attachments.items() if of == guest}


class History(NamedTuple):
    """Another one after a backup of the store was brought back."""

    epoch: str
    """What the person who did that wrote down; '': nothing."""
    cluster: str = ""
    """What the servers themselves tell; '': nothing."""


class Book:
    """Reads and writes the fleet's store. Every method raises as :class:`moorline.ports.Store`.

    *cluster*: which servers answered last.
    """

    def __init__(
        self,
        store: Store,
        codec: AttachmentCodec,
        vault: Vault,
        cluster: Callable[[], str] = lambda: "",
    ) -> None:
        self.store = store
        self.codec = codec
        self.vault = vault
        self._cluster = cluster

    def history(self) -> History:
        """What all that was read until now is of."""
        entry = self.store.get(keys.EPOCH)
        return History(entry.value.decode() if entry else "", self._cluster())

    def hosts(self) -> dict[str, HostRecord]:
        """Every host of the fleet, by name."""
        return self._all(keys.HOSTS, HostRecord)

    def enrolled(self) -> dict[str, int]:
        """The hosts that were given a way to the store: the revision at which each was, last."""
        return {keys.last(each.key): each.revision for each in self.store.list(keys.ENROLLED)[0]}

    def host(self, name: str) -> HostRecord | None:
        """One host."""
        return self._one(keys.host(name), HostRecord)

    def heartbeat(self, host: str) -> Heartbeat | None:
        """The last sign of life of a host's agent."""
        return self._one(keys.heartbeat(host), Heartbeat)

    def events(self, host: str) -> list[HostEvent]:
        """The last entries of a host's event log, as far as it has told them; oldest first."""
        found = self._all(keys.events(host), HostEvent).values()
        return sorted(found, key=lambda event: (event.at, event.id))

    def decisions(self) -> dict[str, Decision]:
        """What was decided, by its key, oldest first."""
        entries = sorted(self.store.list(keys.DECISIONS)[0], key=lambda entry: entry.key)
        return {entry.key: Decision.decode(entry) for entry in entries}

    def owner(self, guest: GuestId) -> GuestOwner | None:
        """Who has a guest."""
        return self._one(keys.guest_owner(guest), GuestOwner)

    def owners(self) -> dict[GuestId, GuestOwner]:
        """Who has which guest."""
        return {GuestId(id): each for id, each in self._all(keys.GUEST_OWNERS, GuestOwner).items()}

    def volume_owner(self, volume: VolumeId) -> VolumeOwner | None:
        """Who has a volume."""
        return self._one(keys.volume_owner(volume), VolumeOwner)

    def volume_at(self, place: str) -> VolumeId | None:
        """Which volume a storage is, by what identifies it: its derived id, say."""
        entry = self.store.get(keys.place(place))
        return VolumeId(entry.value.decode()) if entry else None

    def own_claim(self, host: str, guest: GuestId, volume: VolumeId) -> OwnClaim | None:
        """That a host has a volume by itself, as its owner says."""
        return self._one(keys.own_volume(host, guest, volume), OwnClaim)

    def own_claims(self) -> dict[tuple[str, GuestId, VolumeId], OwnClaim]:
        """What hosts have by themselves, as owners say: by host, guest and volume."""
        found = {}
        for entry in self.store.list(keys.OWN_VOLUMES)[0]:
            host, guest, volume = keys.below(keys.OWN_VOLUMES, entry.key)
            found[unquote(host), GuestId(guest), VolumeId(volume)] = OwnClaim.decode(entry)
        return found

    def held(self, host: str) -> Held | None:
        """What the reports of a host name."""
        return self._one(keys.held(host), Held)

    def held_by_hosts(self) -> dict[str, Collection[str]]:
        """What the reports of each host name, of those that say so."""
        return {name: each.digests for name, each in self._all(keys.HELD, Held).items()}

    def volumes(self) -> frozenset[VolumeId]:
        """The volumes that some guest has."""
        return frozenset(
            VolumeId(keys.last(each.key)) for each in self.store.list(keys.VOLUME_OWNERS)[0]
        )

    def moves(self) -> dict[GuestId, Move]:
        """The moves that are under way."""
        return {GuestId(id): each for id, each in self._all(keys.MOVES, Move).items()}

    def move(self, guest: GuestId) -> Move | None:
        """The move of a guest."""
        return self._one(keys.move(guest), Move)

    def assignment(self, host: str, guest: GuestId) -> Assignment | None:
        """What a host is to do with a guest."""
        return self._one(keys.assignment(host, guest), Assignment)

    def guest_report(self, host: str, guest: GuestId) -> GuestReport | None:
        """What a host says of a guest."""
        return self._one(keys.report(keys.assignment(host, guest)), GuestReport)

    def attachment(self, host: str, guest: GuestId, volume: VolumeId) -> Attachment | None:
        """What is wanted of a volume and a guest on a host."""
        entry = self.store.get(keys.attachment(host, guest, volume))
        return self.codec.decode(entry) if entry else None

    def volume_report(self, host: str, guest: GuestId, volume: VolumeId) -> VolumeReport | None:
        """What a host says of an attachment."""
        return self._one(keys.report(keys.attachment(host, guest, volume)), VolumeReport)

    def reported(self) -> Iterator[tuple[str, GuestId, VolumeId, VolumeReport]]:
        """What every host reports of volumes, as :meth:`told` has it: a million of them at most."""
        found: dict[str, OfHost] = {}
        for entry in self.store.list(keys.STATUS)[0]:
            host, guest, *volume = keys.below(keys.STATUS, entry.key)
            if volume:
                of = GuestId(guest), VolumeId(volume[0])
                found.setdefault(unquote(host), OfHost()).volumes[of] = VolumeReport.decode(entry)
        yield from self.told(found)

    def told(
        self, reports: Mapping[str, OfHost]
    ) -> Iterator[tuple[str, GuestId, VolumeId, VolumeReport]]:
        """What hosts report of volumes: host, guest, volume, and the report.

        What the fleet wants there by now is not the host's own, whatever that has yet to hear.
        """
        for host, of_host in reports.items():
            for of, report in of_host.volumes.items():
                wanted = report.by_itself and self.store.get(keys.attachment(host, *of))
                yield host, *of, replace(report, own=False, local=()) if wanted else report

    def guests_reported(self) -> Iterator[tuple[str, GuestId, GuestReport]]:
        """What every host reports of guests: host, guest, and the report."""
        for entry in self.store.list(keys.STATUS)[0]:
            host, guest, *volume = keys.below(keys.STATUS, entry.key)
            if not volume:
                yield unquote(host), GuestId(guest), GuestReport.decode(entry)

    def desired(self, host: str, *, also_unread: bool = False) -> OfHost:
        """All that is wanted of a host.

        Raises Unavailable: an attachment cannot be read; with *also_unread* it is told as such.
        """
        found, prefix = OfHost(), keys.desired(host)
        for entry in self.store.list(prefix)[0]:
            guest, *volume = keys.below(prefix, entry.key)
            if volume:
                of = GuestId(guest), VolumeId(volume[0])
                try:
                    found.attachments[of] = self.codec.decode(entry)
                except Unavailable as e:
                    if not also_unread:
                        raise
                    why = f"{e.message}: {e.hint}" if e.hint else e.message
                    found.unread[of] = Unread(entry.revision, why)
            else:
                found.assignments[GuestId(guest)] = Assignment.decode(entry)
        return found

    def reports(self, host: str) -> OfHost:
        """All that a host reports."""
        found, prefix = OfHost(), keys.status(host)
        for entry in self.store.list(prefix)[0]:
            guest, *volume = keys.below(prefix, entry.key)
            if volume:
                id = VolumeId(volume[0])
                found.volumes[GuestId(guest), id] = VolumeReport.decode(entry)
            else:
                found.guests[GuestId(guest)] = GuestReport.decode(entry)
        return found

    def definition(self, host: str, guest: GuestId) -> bytes | None:
        """What a guest is defined by, as *host* can open it."""
        at = keys.definition(host, guest)
        entry = self.store.get(at)
        return self.vault.open(at, entry.value) if entry else None

    def unopened(self, host: str, guest: GuestId) -> str:
        """Why nobody can bring *guest* elsewhere from what *host* said it is defined by; ''.

        A controller takes nothing that was sealed with keys which were replaced since.
        """
        at = keys.definition(host, guest)
        entry = self.store.get(at)
        try:
            if entry:
                self.vault.open(at, entry.value)
        except Unavailable:
            return (
                f"what it is defined by was sealed with keys of {host} that were replaced since:"
                " it goes once the agent there was restarted"
            )
        return ""

    def commit(self, change: Change) -> int:
        """Make *change*, and return its revision."""
        return self.store.commit(list(change.when.values()), list(change.then.values()))

    def sealed(self, attachment: Attachment, host: str) -> tuple[str, bytes]:
        """*attachment* as an entry of *host*."""
        at = keys.attachment(host, attachment.key.guest, attachment.key.volume)
        key = Key(host, attachment.key.volume, attachment.key.guest)
        return at, self.codec.encode(at, replace(attachment, key=key))

    def _one(self, key: str, kind: type[R]) -> R | None:
        entry = self.store.get(key)
        return kind.decode(entry) if entry else None

    def _all(self, prefix: str, kind: type[R]) -> dict[str, R]:
        return {keys.last(each.key): kind.decode(each) for each in self.store.list(prefix)[0]}
