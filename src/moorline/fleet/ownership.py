"""Who gets a volume: attaching and detaching through the fleet, each one commit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from moorline.core.record_clashes import differences
from moorline.errors import Busy, Conflict, NotFound, Refused, Uncertain
from moorline.fleet import keys
from moorline.fleet.open_elsewhere import Asked, demand_unopened
from moorline.fleet.own_reports import way_out
from moorline.fleet.record_store import MAX_VOLUMES_PER_GUEST, Book, Change
from moorline.fleet.records import (
    Assignment,
    GuestOwner,
    GuestReport,
    HostRecord,
    OwnClaim,
    Role,
    VolumeOwner,
    VolumeReport,
)
from moorline.fleet.same_ids import WAY_OUT
from moorline.model import Attachment, GuestId, Key, Level, VolumeId
from moorline.ports import At

T = TypeVar("T")
Dead = Mapping[tuple[str, GuestId, VolumeId], tuple[OwnClaim, HostRecord]]
_MAX_PLACES = 90
"""Of one volume: all of them are claimed in one commit, of at most 100 operations."""
_TRIES = 8
"""How often a change is decided anew because somebody else wrote first, or its fate is unknown."""


@dataclass(frozen=True, slots=True)
class Home:
    """The host that has a guest."""

    guest: GuestId
    owner: GuestOwner
    assignment: Assignment


class Ownership:
    """Gives volumes to guests, whatever host those are on. Two who ask at once are told apart.

    All raise Refused, Busy (the guest is on its way to another host), and what the store raises.
    """

    def __init__(self, book: Book) -> None:
        self._book = book

    def find(self, guest: str) -> Home:
        """Look up by name or id who has a guest. Raises NotFound, Refused (there are several)."""
        owners = self._book.owners()
        mine = [id for id, owner in owners.items() if guest in (id, owner.name)]
        if len(mine) > 1 and guest not in mine:
            raise Refused(f"there are {len(mine)} guests of the name {guest}: give the id")
        if not mine:
            return self._unowned(guest)
        id = GuestId(guest) if guest in mine else mine[0]
        assignment = self._book.assignment(owners[id].host, id)
        if assignment is None:
            raise Busy(f"{guest} has just gone to another host", hint="repeat the command")
        return Home(id, owners[id], assignment)

    def attach(self, home: Home, wanted: Attachment) -> Attachment:
        """Let *wanted* be the guest's; return it as it is recorded.

        Its key need not be that of the host. As wanted already is success. Refused: another
        guest has the volume, and is named.
        """
        guest, volume = home.guest, wanted.key.volume
        return decided(lambda: self._attach(self._anew(guest, home), volume, wanted))

    def detach(self, guest: GuestId, volume: VolumeId) -> Attachment | None:
        """Have *volume* taken from *guest*; return what is recorded. None: it is not its disk."""
        return decided(lambda: self._detach(guest, volume))

    def in_the_way(self, home: Home, wanted: Attachment) -> list[str]:
        """Say what :meth:`attach` would refuse now; nothing: it would not."""
        try:
            now = self._anew(home.guest, home)
            volume = wanted.key.volume
            dead = self._of_the_dead(now, volume)
            owner = self._owned(_without(self._book.volume_owner(volume), dead), now, wanted)
            self._claim(Change(), owner, volume)
            demand_unopened(self._book, asked_for(now, volume, owner), dead)
        except (Busy, Refused) as e:
            return [e.message]
        return []

    def release(self, home: Home, volume: VolumeId) -> bool:
        """Give the volume free if its host reports that it is gone; whether it is free."""
        return decided(lambda: self._release(home.guest, volume))

    def _unowned(self, name: str) -> Home:
        """A guest that a host reports, and that nobody has registered yet."""
        found = []
        for host in self._book.hosts():
            for id, report in self._book.reports(host).guests.items():
                if name in (id, report.name) and not report.assignment:
                    found.append((host, id, report))
        if not found:
            raise NotFound(f"no host of the fleet has a guest {name}", hint="moorline fleet list")
        if len(found) > 1:
            raise Refused(f"{' and '.join(host for host, *_ in found)} have a guest {name}")
        host, id, report = found[0]
        if owner := self._book.owner(id):
            has = f"{owner.name} on {owner.host} has that UUID in the fleet"
            raise Refused(f"{name} on {host} is none of the fleet: {has}", hint=WAY_OUT)
        change = registration(self._book, host, id, report)
        decided(lambda: self._book.commit(change))
        return self.find(id)

    def _anew(self, guest: GuestId, home: Home) -> Home:
        """The same guest as it is now, at home."""
        owner = self._book.owner(guest)
        now = self._book.assignment(owner.host, guest) if owner else None
        if owner is None or now is None:
            raise NotFound(f"the fleet knows {home.owner.name} no more")
        if now.role is not Role.HERE or self._book.move(guest):
            raise Busy(f"{owner.name} is on its way to another host", hint="moorline fleet hosts")
        return Home(guest, owner, now)

    def _attach(self, home: Home, volume: VolumeId, wanted: Attachment) -> Attachment:
        host, guest = home.owner.host, home.guest
        before = self._book.attachment(host, guest, volume)
        row = replace(wanted, key=Key(host, volume, guest), guest_name=home.owner.name)
        if before is not None and before.want > Level.ABSENT:
            _refuse_another(before, row)
            if before.connection == row.connection and before.want >= row.want:
                return before
        change = _at_home(home)
        change.expect(keys.move(guest), None)
        at, sealed = self._book.sealed(row, host)
        change.expect(at, before)
        change.put(at, sealed)
        before_owner = self._book.volume_owner(volume)
        dead = self._of_the_dead(home, volume)
        self._take(change, dead)
        owner = self._owned(_without(before_owner, dead), home, row)
        change.replace(keys.volume_owner(volume), before_owner, owner)
        own = keys.own_volume(host, guest, volume)
        if self._book.store.get(own):  # it is the fleet's from now on
            change.delete(own)
        self._claim(change, owner, volume)
        demand_unopened(self._book, asked_for(home, volume, owner), dead)
        if (
            before is None
            and len(self._book.desired(host).attachments_of(guest)) >= MAX_VOLUMES_PER_GUEST
        ):
            raise Refused(
                f"{home.owner.name} has {MAX_VOLUMES_PER_GUEST} volumes: no more can move at once"
            )
        return replace(row, revision=self._book.commit(change))

    def _owned(self, owner: VolumeOwner | None, home: Home, row: Attachment) -> VolumeOwner:
        """The volume's owner if *row* is let in. Raises Refused: who has it."""
        shared = row.options.shared
        others = [each for each in owner.guests if each != home.guest] if owner else []
        if others and not (shared and owner and owner.shared):
            who = self._book.owner(others[0])
            told = f"{who.name} on {who.host}" if who else f"guest {others[0]}"
            raise Refused(
                f"volume {row.key.volume} is not attached to {home.owner.name}: {told} has it",
                hint=self._way(others[0], who.name if who else others[0], row.key.volume),
            )
        # What it was attached as before is kept, too: the guest may have that open still.
        places = {row.place, *row.aliases} | (owner.places if owner else set())
        aliases = tuple(sorted(places - {row.place, ""}))
        return VolumeOwner(
            guests=(*others, home.guest), shared=shared, place=row.place, aliases=aliases
        )

    def _way(self, guest: GuestId, name: str, volume: VolumeId) -> str:
        """How *guest* can be without the volume."""
        for host, of, own in self._book.own_claims():
            if (of, own) == (guest, volume):
                return way_out(host, guest, volume, self._book.volume_report(host, guest, volume))
        return f"moorline fleet detach {name} {volume}"

    def claim_own(
        self, host: str, guest: GuestId, volume: VolumeId, report: VolumeReport
    ) -> Change | None:
        """Have *guest* own what *host* reports to have by itself. None: it does, or the fleet has
        wanted it there since. Raises Refused: it is another's.
        """
        claim = self._book.own_claim(host, guest, volume)
        before = self._book.volume_owner(volume)
        home = self._book.owner(guest)
        if claim is None and before is not None:
            shared = before.shared and report.shared
            at_home = home is None or home.host == host
            claimed = any((g, v) == (guest, volume) for _, g, v in self._book.own_claims())
            if not shared and (before.guests != (guest,) or not at_home or claimed):
                raise Refused(f"volume {volume} is another's")
            if guest in before.guests and self._book.attachment(host, guest, volume):
                return None
        owner = before or VolumeOwner(guests=(), shared=report.shared)
        places = sorted(owner.places.union(report.places))
        place = owner.place or places[0]
        after = replace(
            owner,
            guests=(*(each for each in owner.guests if each != guest), guest),
            place=place,
            aliases=tuple(each for each in places if each != place),
            shared=owner.shared and report.shared,
        )
        if claim is not None and before is not None and after.places == before.places:
            return None
        change = Change()
        change.expect(keys.report(keys.attachment(host, guest, volume)), report)
        change.replace(keys.volume_owner(volume), before, after)
        change.replace(keys.own_volume(host, guest, volume), claim, OwnClaim())
        self._claim(change, after, volume)
        return change

    def drop_own(self, host: str, guest: GuestId, volume: VolumeId, claim: OwnClaim) -> Change:
        """Take the volume from *guest*: its host reports no more that it has it by itself."""
        change = Change()
        change.expect(keys.report(keys.attachment(host, guest, volume)), None)
        change.delete(keys.own_volume(host, guest, volume), claim)
        self.drop(change, guest, volume)
        return change

    def claim(self, guest: GuestId, volume: VolumeId, places: Sequence[str]) -> Change | None:
        """Have the volume own the file that *guest* has as its disk, too, until it is free.

        None: it does, or another volume has it.
        """
        owner = self._book.volume_owner(volume)
        if owner is None or guest not in owner.guests or owner.places.issuperset(places):
            return None
        change = Change()
        after = replace(owner, aliases=tuple(sorted({*owner.aliases, *places} - {owner.place})))
        change.replace(keys.volume_owner(volume), owner, after)
        try:
            self._claim(change, after, volume)
        except Refused:
            return None
        return change

    def _of_the_dead(self, home: Home, volume: VolumeId) -> Dead:
        """The hosts that have the volume by themselves, and are fenced; with their guests."""
        found = {}
        for (host, guest, own), claim in self._book.own_claims().items():
            record = self._book.host(host) if own == volume and host != home.owner.host else None
            if record is not None and record.fenced:
                found[host, guest, own] = claim, record
        return found

    def _take(self, change: Change, dead: Dead) -> None:
        """Take a volume from hosts that are fenced; when they come back they are told of it."""
        for (host, guest, volume), (claim, record) in dead.items():
            disputed = tuple(sorted({*record.disputed, f"{guest}/{volume}"}))
            change.replace(keys.host(host), record, replace(record, disputed=disputed))
            change.delete(keys.own_volume(host, guest, volume), claim)

    def _claim(self, change: Change, owner: VolumeOwner, volume: VolumeId) -> None:
        """Have *change* claim all its places for the volume. Raises Refused: one is another's."""
        if len(owner.places) > _MAX_PLACES:
            raise Refused(
                f"the storage of volume {volume} was named in more than {_MAX_PLACES} ways",
                hint="detach it first, and name fewer servers",
            )
        for at in map(keys.place, sorted(owner.places)):
            entry = self._book.store.get(at)
            if entry is not None and entry.value.decode() != volume:
                raise Refused(f"the same storage is volume {entry.value.decode()} already")
            change.when[at] = At(at, entry.revision if entry else 0)
            change.put(at, volume.encode())

    def _detach(self, guest: GuestId, volume: VolumeId) -> Attachment | None:
        owner = self._book.owner(guest)
        before = self._book.attachment(owner.host, guest, volume) if owner else None
        if owner is None or before is None:
            return None
        assignment = self._book.assignment(owner.host, guest)
        if assignment is None or assignment.role is not Role.HERE or self._book.move(guest):
            raise Busy(f"{owner.name} is on its way to another host", hint="moorline fleet hosts")
        if before.want is Level.ABSENT:
            return before
        gone = replace(before, want=Level.ABSENT)
        change = _at_home(Home(guest, owner, assignment))
        change.expect(keys.move(guest), None)
        at, sealed = self._book.sealed(gone, owner.host)
        change.expect(at, before)
        change.put(at, sealed)
        return replace(gone, revision=self._book.commit(change))

    def _release(self, guest: GuestId, volume: VolumeId) -> bool:
        owner = self._book.owner(guest)
        row = self._book.attachment(owner.host, guest, volume) if owner else None
        if owner is None or row is None:
            return True
        assignment = self._book.assignment(owner.host, guest)
        report = self._book.volume_report(owner.host, guest, volume)
        if assignment is None or assignment.role is not Role.HERE or row.want > Level.ABSENT:
            return False
        if report is None or report.attachment != row.revision or report.seen != "absent":
            return False
        # Also while a move waits for just this, to begin.
        change = _at_home(Home(guest, owner, assignment))
        change.delete(keys.attachment(owner.host, guest, volume), row)
        self.drop(change, guest, volume)
        self._book.commit(change)
        return True

    def drop(self, change: Change, guest: GuestId, volume: VolumeId) -> None:
        """Let *change* also take the volume from its owners."""
        owner = self._book.volume_owner(volume)
        if owner is None:
            return
        left = tuple(each for each in owner.guests if each != guest)
        if left:
            change.replace(keys.volume_owner(volume), owner, replace(owner, guests=left))
            return
        change.delete(keys.volume_owner(volume), owner)
        for place in owner.places:
            change.delete(keys.place(place))


def _without(owner: VolumeOwner | None, dead: Dead) -> VolumeOwner | None:
    """The *owner* once the guests of *dead* hosts have lost the volume."""
    lost = {guest for _, guest, _ in dead}
    return owner and replace(owner, guests=tuple(g for g in owner.guests if g not in lost))


def asked_for(home: Home, volume: VolumeId, owner: VolumeOwner) -> Asked:
    """What *owner* is to get."""
    guest = home.guest, home.owner.name
    return Asked(home.owner.host, *guest, volume, owner.places, shared=owner.shared)


def _at_home(home: Home) -> Change:
    """A change that holds only while the guest stays where it is."""
    change = Change()
    change.expect(keys.guest_owner(home.guest), home.owner)
    change.expect(keys.assignment(home.owner.host, home.guest), home.assignment)
    return change


def registration(book: Book, host: str, guest: GuestId, report: GuestReport) -> Change:
    """Give a guest that nobody has to the host that reports it."""
    change = Change()
    owner = GuestOwner(host=host, name=report.name)
    here = Assignment(name=report.name, role=Role.HERE, generation=owner.generation)
    change.replace(keys.guest_owner(guest), None, owner)
    change.replace(keys.assignment(host, guest), None, here)
    change.expect(keys.report(keys.assignment(host, guest)), report)
    return change


def decided(do: Callable[[], T]) -> T:
    """Decide and commit, anew where somebody was faster or the reply was lost.

    Every change can be repeated: as it should be already is success.
    """
    for left in reversed(range(_TRIES)):
        try:
            return do()
        except (Conflict, Uncertain):
            if not left:
                raise
    raise AssertionError("unreachable")


def _refuse_another(before: Attachment, row: Attachment) -> None:
    if before.options != row.options:
        raise Refused(
            f"volume {row.key.volume} is wanted on {row.guest_name} with other options:"
            f" {differences(before.options, row.options)}",
            hint="detach it first, or attach it as it is wanted",
        )
