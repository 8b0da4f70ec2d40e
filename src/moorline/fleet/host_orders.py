"""What a person asks of a whole host of the fleet: that it is cordoned, drained, evacuated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from moorline.core.backoff import backoff
from moorline.deadline import CLOCK, Clock, Deadline
from moorline.errors import Failed, NotFound, Refused, Unavailable, Uncertain
from moorline.fleet import keys
from moorline.fleet.fencing import Proof, fence
from moorline.fleet.host_choice import why_it_stays
from moorline.fleet.liveness import SILENCE_SECONDS, Expiry
from moorline.fleet.ownership import Ownership, decided
from moorline.fleet.queries import Queries
from moorline.fleet.record_store import Book, Change
from moorline.fleet.records import HostRecord
from moorline.fleet.results import FleetOutcome
from moorline.fleet.same_ids import is_another
from moorline.ports.progress import Progress, no_progress

MOST_AT_ONCE = 100
_FIRST_POLL_SECONDS, _POLL_SECONDS = 0.01, 0.5


class HostOrders(Queries):
    """Orders to hosts; see :class:`moorline.fleet.fleet.Fleet`."""

    def __init__(self, book: Book, clock: Clock = CLOCK, silence: float = SILENCE_SECONDS) -> None:
        super().__init__(book)
        self._ownership = Ownership(book)
        self._clock = clock
        self._silence = silence

    def cordon(self, host: str, *, dry_run: bool = False) -> FleetOutcome:
        """Let no guest come to *host* any more."""
        return self._mark(host, "cordon", lambda at: replace(at, cordoned=True), dry_run=dry_run)

    def uncordon(self, host: str, *, dry_run: bool = False) -> FleetOutcome:
        """Let guests come to *host* again, and none go because it was to be drained."""
        return self._mark(
            host,
            "uncordon",
            lambda at: replace(at, cordoned=False, draining=False, first=(), at_once=0),
            dry_run=dry_run,
        )

    def drain(
        self,
        host: str,
        *,
        first: Sequence[str] = (),
        at_once: int | None = None,
        timeout: float = 600.0,
        progress: Progress = no_progress,
        dry_run: bool = False,
    ) -> FleetOutcome:
        """Bring all guests of *host* elsewhere, and let none come, until it is uncordoned.

        *first*: guests (names or ids) that go before the others, in this order. *at_once*: so
        many are on their way, or starting, at a time. Of a host that is drained already they
        change what was said before, where they are given. Raises NotFound (also if it was never
        heard: nobody knows which guests it has), Refused.
        """
        self._host(host)
        if self._book.heartbeat(host) is None:
            raise NotFound(
                f"{host} was never heard: nobody knows which guests it has",
                hint=f"start its agent; moorline fleet cordon {host} keeps guests from it",
            )
        ordered = self._ordered(first, at_once)
        told = self._mark(
            host,
            "drain",
            lambda at: replace(ordered(at, at.draining), cordoned=True, draining=True),
            dry_run=dry_run,
        )
        if dry_run:
            return replace(told, in_the_way=self._that_stay(host, dead=False))
        self._wait_without_guests(host, timeout, progress)
        return told

    def evacuate(
        self,
        host: str,
        proof: Proof,
        *,
        by: str,
        first: Sequence[str] = (),
        at_once: int | None = None,
        timeout: float = 600.0,
        progress: Progress = no_progress,
        dry_run: bool = False,
    ) -> FleetOutcome:
        """Have the guests of a dead host run elsewhere, once it is silent and *proof* is made.

        *first*, *at_once*: as of :meth:`drain`. Raises Busy (it is alive), Refused (nobody knows
        what it had). Blocks for the time
        that is needed to find it silent.
        """
        told = FleetOutcome(["fence", "evacuate"], host=host)
        record, ordered = self._host(host), self._ordered(first, at_once)
        if not record.fenced and self._book.heartbeat(host) is None:
            raise Refused(
                f"{host} was never heard: nobody knows which guests it has, so none can be brought"
                " elsewhere",
                hint=f"start its agent; if it is gone for good: moorline fleet revoke {host}",
            )
        if dry_run:
            steps = told.steps[1:] if record.fenced else told.steps
            return replace(told, steps=steps, in_the_way=self._that_stay(host, dead=True))
        if record.fenced:
            self._mark(
                host,
                "evacuate",
                lambda at: ordered(at, True) if at.fenced else at,
                dry_run=False,
            )
        else:
            expiry = self._silent(host, progress)
            fence(self._book, host, expiry, proof, by, ordered=lambda at: ordered(at, False))
        self._wait_without_guests(host, timeout, progress)
        return told

    def _ordered(
        self, first: Sequence[str], at_once: int | None
    ) -> Callable[[HostRecord, bool], HostRecord]:
        """What writes the order down in a host's record; True: it is being emptied already.

        Raises NotFound: the fleet knows no such guest. One that is elsewhere went before.
        """
        if at_once is not None and not 0 < at_once <= MOST_AT_ONCE:
            raise Refused(f"at once: between 1 and {MOST_AT_ONCE} guests")
        guests = tuple(dict.fromkeys(self._ownership.find(name).guest for name in first))

        def ordered(record: HostRecord, begun: bool) -> HostRecord:
            before = record if begun else HostRecord()
            most = before.at_once if at_once is None else at_once
            return replace(record, first=guests or before.first, at_once=most)

        return ordered

    def _silent(self, host: str, progress: Progress) -> Callable[[str, int], bool]:
        """Wait until *host* was silent for long enough. Raises Busy: it was not."""
        expiry = Expiry(self._clock, self._silence)
        first = self._book.heartbeat(host)
        revision = first.revision if first else 0
        deadline = Deadline(self._silence, self._clock)
        expiry.left(host, revision)
        progress(f"listening to {host} for {self._silence:.0f} s")
        while not expiry.expired(host, revision):
            deadline.sleep(min(1.0, self._silence))
            now = self._book.heartbeat(host)
            if now is not None and now.revision != revision:
                break
        return expiry.expired

    def _mark(
        self, host: str, step: str, change_it: Callable[[HostRecord], HostRecord], *, dry_run: bool
    ) -> FleetOutcome:
        def mark() -> bool:
            record = self._host(host)
            after = change_it(record)
            if after == record:
                return False
            if not dry_run:
                change = Change()
                change.replace(keys.host(host), record, after)
                change.note(step, host)
                self._book.commit(change)
            return True

        return FleetOutcome([step] if decided(mark) else [], host=host)

    def _host(self, name: str) -> HostRecord:
        record = self._book.host(name)
        if record is None and name in self._book.enrolled():
            raise Unavailable(
                f"{name} is enrolled, and no controller has taken it into the fleet yet",
                hint="moorline fleet controller",
            )
        if record is None:
            raise NotFound(f"there is no host {name} in the fleet", hint="moorline fleet hosts")
        return record

    def _guests_of(self, host: str) -> list[str]:
        """Those that it has, also what it tells of and no controller has registered."""
        owners, dead = self._book.owners(), bool(self._host(host).fenced)
        its = [each.name for each in owners.values() if each.host == host]
        for guest, report in self._book.reports(host).guests.items():
            another = guest in owners and is_another(report) and not dead
            if another or (guest not in owners and not report.assignment):
                others = "none of the fleet" if another else "not registered by a controller yet"
                its.append(f"{report.name} ({others})")
        return sorted(its)

    def _that_stay(self, host: str, *, dead: bool) -> list[str]:
        """Why some of its guests cannot go to another host at all."""
        desired, reports = self._book.desired(host), self._book.reports(host)
        return [
            f"{assignment.name}: {why}"
            for guest, assignment in desired.assignments.items()
            for why in [
                *why_it_stays(guest, desired, reports, dead=dead),
                *filter(None, [self._book.unopened(host, guest)]),
            ]
        ]

    def _wait_without_guests(self, host: str, timeout: float, progress: Progress) -> None:
        def missing() -> str:
            left, record = self._guests_of(host), self._host(host)
            if not left:
                return ""
            stay = self._that_stay(host, dead=bool(record.fenced))
            beat = self._book.heartbeat(host)
            if beat and beat.left and not record.fenced:
                stay = [f"{host} left the fleet, and has them by itself", *stay]
            progress("; ".join([f"{len(left)} guests are on {host}", *stay]))
            return "; ".join([f"{', '.join(left)} are on {host} still", *stay])

        self._wait(Deadline(timeout, self._clock), missing)

    def _wait(self, deadline: Deadline, missing: Callable[[], str]) -> None:
        """Wait until nothing is *missing*. Raises Failed, as all is recorded by now: Unavailable
        would say that nothing was."""
        looks = 0
        while True:
            try:
                why = missing()
            except (Unavailable, Uncertain) as e:
                why = str(e)
            if not why:
                return
            if deadline.over():
                raise Failed(why, hint="it goes on: repeat the command to wait for it")
            # What is done at once is told at once; what takes long is not asked for all the time.
            deadline.sleep(backoff(looks, first=_FIRST_POLL_SECONDS, longest=_POLL_SECONDS))
            looks += 1
