"""What a person can ask of the fleet: each call records what is wanted, and waits for it."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace

from moorline.core.connection_fields import usable_id
from moorline.core.name_lookup import meant
from moorline.deadline import Deadline
from moorline.errors import (
    Busy,
    Failed,
    NotFound,
    NotOurs,
    Refused,
    told_about,
)
from moorline.fleet import keys
from moorline.fleet.given_up import demand_stays, given_up
from moorline.fleet.host_choice import why_it_stays
from moorline.fleet.host_orders import HostOrders
from moorline.fleet.own_reports import has_all_the_same, other_disk, own_reports_of
from moorline.fleet.ownership import Home, decided
from moorline.fleet.record_store import Change
from moorline.fleet.records import GuestOwner, GuestReport, Move
from moorline.fleet.results import FleetOutcome
from moorline.fleet.same_ids import is_another, why_not
from moorline.model import Attachment, Level, VolumeId
from moorline.ports.moving import Presence
from moorline.ports.progress import Progress, no_progress

_SILENT = "its host has not said anything yet"


class Fleet(HostOrders):
    """The fleet, for whoever gives orders to it. Each call can be repeated.

    Raises what the store raises; of what is not done when the *timeout* is over, Failed: it
    stands, and goes on without the caller.
    """

    def attach(
        self,
        guest: str,
        wanted: Attachment,
        *,
        timeout: float = 60.0,
        progress: Progress = no_progress,
        dry_run: bool = False,
    ) -> FleetOutcome:
        """Attach a volume to *guest* (name or id), wherever that is.

        Refused: another guest has the volume, and is named; or its host refuses it, and then
        nothing of it is left.
        """
        volume = wanted.key.volume
        with told_about(volume, ""):
            home = self._ownership.find(guest)
        with told_about(volume, home.owner.name):
            return self._attach(home, wanted, timeout, progress, dry_run=dry_run)

    def _attach(
        self, home: Home, wanted: Attachment, timeout: float, progress: Progress, *, dry_run: bool
    ) -> FleetOutcome:
        guest, volume = home.owner.name, wanted.key.volume
        there = replace(wanted, key=wanted.key._replace(guest=home.guest))
        told = FleetOutcome(["attach"], guest, home.owner.host, volume)
        if dry_run:
            return replace(told, in_the_way=self._ownership.in_the_way(home, there))
        row = self._ownership.attach(home, there)
        progress(f"attaching volume {volume} on {row.key.host}")

        def missing() -> str:
            why = _SILENT
            now = self._where_it_is(row)
            report = self._book.volume_report(now.key.host, home.guest, volume)
            if report is not None and report.attachment == now.revision:
                if report.seen == str(row.want):
                    return ""
                why = report.message or why
                if report.error == "refused":
                    self._ownership.detach(home.guest, volume)
                    raise Refused(f"volume {volume} is not attached to {guest}: {why}")
            return f"volume {volume} is not attached to {guest} yet: {why}"

        self._wait(Deadline(timeout, self._clock), missing)
        return told

    def _where_it_is(self, row: Attachment) -> Attachment:
        """*row* as it is wanted by now: its guest may have been brought to another host."""
        owner = self._book.owner(row.key.guest)
        now = owner and self._book.attachment(owner.host, row.key.guest, row.key.volume)
        return now or row

    def detach(
        self,
        guest: str,
        volume: str,
        *,
        timeout: float = 60.0,
        progress: Progress = no_progress,
        dry_run: bool = False,
    ) -> FleetOutcome:
        """Take *volume* (as of :meth:`show`) away, and wait for that. Not its disk, as its host
        told of them last: success.

        Refused: its host does not take the disk away, as the guest would lose what it wrote; it
        stays attached. NotOurs: somebody else's mount is in the way there, or a host has the
        volume by itself, for this guest, or somebody else plugged it: that stays. NotFound: the
        fleet has no such volume of it, and its host has not told which other disks it has.
        """
        home = self._ownership.find(guest)
        its = {VolumeId(v.volume) for v in self._views(home.owner.host) if v.guest_id == home.guest}
        own = own_reports_of(self._book, home.owner.host, home.guest)
        its |= {each.volume for each in own}
        id = meant(usable_id(volume), its) or VolumeId(volume)
        told = FleetOutcome(["detach"], home.owner.name, home.owner.host, id)
        before = self._book.attachment(home.owner.host, home.guest, id)
        name, host = home.owner.name, home.owner.host
        with told_about(id, name):
            # Asked before: once something is taken, no store that is away may say it was not.
            of = self._book, host, home.guest, name, id
            stays = has_all_the_same(*of) or other_disk(*of)
            if before is not None and isinstance(stays, NotFound):
                stays = None  # the fleet knows it, and its host takes it away
            if before is not None and not dry_run:
                self._detach(home, before, Deadline(timeout, self._clock), progress)
            if stays is not None:
                raise stays
        return told if before is not None else replace(told, steps=[])

    def _detach(
        self, home: Home, before: Attachment, deadline: Deadline, progress: Progress
    ) -> None:
        guest, id = home.owner.name, before.key.volume
        gone = self._ownership.detach(home.guest, id)
        progress(f"detaching volume {id} on {home.owner.host}")

        def missing() -> str:
            if self._ownership.release(home, id):
                return ""
            report = self._book.volume_report(home.owner.host, home.guest, id)
            why = (report.message if report else "") or _SILENT
            if report and gone and report.attachment == gone.revision:
                there = f"volume {id} is not taken from {guest} on {home.owner.host}: {why}"
                if report.error == "refused":
                    # Else it would go unasked, once what is in the way is mended.
                    with suppress(Busy):
                        self._ownership.attach(home, replace(before, want=Level.ATTACHED))
                    raise Refused(there, hint=report.hint)
                if report.error == "notours":
                    raise NotOurs(there, hint=report.hint)
            return f"volume {id} is not gone from {guest} yet: {why}"

        self._wait(deadline, missing)

    def migrate(
        self,
        guest: str,
        host: str,
        *,
        by: str = "",
        timeout: float = 300.0,
        progress: Progress = no_progress,
        dry_run: bool = False,
    ) -> FleetOutcome:
        """Bring *guest* to *host* with its volumes, live if it runs. There already is success.

        Refused: that host is cordoned, or cannot have it; it stays where it is then.
        """
        home = self._ownership.find(guest)
        told = FleetOutcome(["migrate"], home.owner.name, host)
        if home.owner.host == host:
            return replace(told, steps=[])
        in_the_way = self._cannot_come(home, host)
        if dry_run:
            return replace(told, in_the_way=[*in_the_way, *self._unread(home, host)])
        if in_the_way:
            raise Refused(f"{guest} stays on {home.owner.host}: {in_the_way[0]}")
        decided(lambda: self._begin(home, host, by))
        return self._wait_for_move(home, told, Deadline(timeout, self._clock), progress)

    def give_up(
        self,
        guest: str,
        why: str = "a person gave it up",
        *,
        timeout: float = 60.0,
        progress: Progress = no_progress,
        dry_run: bool = False,
    ) -> FleetOutcome:
        """Have *guest* stay where it is, and wait until it is settled whether it does.

        On its way to nowhere is success, with no steps; *host* says where it is. Refused: it has
        gone by then, or it goes elsewhere, as its host is drained or fenced.
        """
        home = self._ownership.find(guest)
        move = decided(lambda: given_up(self._book, home.guest, "" if dry_run else why))
        if move is None:
            owner = self._book.owner(home.guest) or home.owner
            return FleetOutcome([], owner.name, owner.host)
        told = FleetOutcome(["give up"], home.owner.name, move.source)
        if dry_run:
            return told

        def missing() -> str:
            now = self._book.move(home.guest)
            if now is None or not now.given_up:  # else it is another one, which came after it
                return ""
            return f"it is not settled yet whether {told.guest} stays on {told.host}"

        progress(f"waiting for {move.source} and {move.destination}")
        with told_about("", told.guest):
            self._wait(Deadline(timeout, self._clock), missing)
            demand_stays(self._book, home.guest, told.guest, move.source)
        return told

    def _begin(self, home: Home, host: str, by: str) -> None:
        move = self._book.move(home.guest)
        if move is not None and move.destination == host:
            return
        if move is not None:
            raise Busy(f"{home.owner.name} is on its way to {move.destination}")
        change = Change()
        change.expect(keys.guest_owner(home.guest), self._book.owner(home.guest))
        asked = Move(
            guest=home.guest, source=home.owner.host, destination=host, by=by, at=time.time()
        )
        change.replace(keys.move(home.guest), None, asked)
        who = f", asked by {by}" if by else ""
        change.note("migrate", asked.source, f"to {host}{who}", guest=home.owner.name)
        self._book.commit(change)

    def _wait_for_move(
        self, home: Home, told: FleetOutcome, deadline: Deadline, progress: Progress
    ) -> FleetOutcome:
        said = ""
        owner: GuestOwner | None = None

        def missing() -> str:
            nonlocal said, owner
            if self._book.move(home.guest) is None:
                owner = self._book.owner(home.guest)
                if owner is None or owner.host != told.host:
                    return ""
                # A stopped guest is of its new host before that has defined it.
                there = self._book.guest_report(told.host, home.guest) or GuestReport()
                return f"{told.host} has yet to define it" if there.seen is Presence.ABSENT else ""
            report = self._book.guest_report(home.owner.host, home.guest)
            if report and report.message and report.message != said:
                said = report.message
                progress(said)
            return f"{home.owner.name} is on its way to {told.host} still"

        self._wait(deadline, missing)
        if owner is None or owner.host != told.host:
            why = owner.note if owner else "the fleet knows it no more"
            raise Failed(f"{home.owner.name} stays on {home.owner.host}: {why}")
        return told

    def _cannot_come(self, home: Home, host: str) -> list[str]:
        record = self._host(host)
        desired, reports = self._book.desired(home.owner.host), self._book.reports(home.owner.host)
        rows = desired.attachments_of(home.guest)
        going = [volume for volume, row in rows.items() if row.want is Level.ABSENT]
        leaving = [f"volume {volume} is on its way out of it" for volume in going]
        there, beat = self._book.guest_report(host, home.guest), self._book.heartbeat(host)
        told = [
            *([f"{host} is fenced"] if record.fenced else []),
            *([f"{host} is cordoned"] if record.cordoned else []),
            *([f"{host} was never heard"] if beat is None else []),
            *([f"{host} left the fleet"] if beat and beat.left else []),
            *([why_not(host, there)] if there and is_another(there) else []),
        ]
        return [*told, *why_it_stays(home.guest, desired, reports), *leaving]

    def _unread(self, home: Home, host: str) -> list[str]:
        """Which of the two hosts has yet to get its keys: a move that is begun waits for that."""
        told = [*filter(None, [self._book.unopened(home.owner.host, home.guest)])]
        for name in (home.owner.host, host):
            beat = self._book.heartbeat(name)
            its = self._book.reports(name).volumes if beat and beat.unread else {}
            for (guest, _), report in its.items():
                if report.error == "unavailable" and (name == host or guest == home.guest):
                    told.append(f"{name} cannot read its volumes: {report.message}")
                    break
        return told
