"""explain and events: the state of one volume, what it waits for, what to do, what was done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile

from moorline.care.eventlog import EventLog
from moorline.care.finding_texts import command
from moorline.core.admission import Admission
from moorline.core.backoff import Pending
from moorline.core.name_lookup import BY_ID, GUEST_BY_NAME, meant, recorded_as
from moorline.core.reconciler import Reconciler
from moorline.core.records import Records
from moorline.core.survey import Survey
from moorline.core.views import detailed
from moorline.errors import NotFound
from moorline.model import Attachment, GuestName, VolumeId
from moorline.ports.care_results import Explanation
from moorline.ports.inspection import Finding
from moorline.ports.results import EventLogEntry, View

_WELL = ("done", "seen")
LATEST_ENTRIES = 5
"""Entries of the event log that are shown."""


class Explainer:
    """explain and events of :class:`moorline.ports.api.Maintenance`."""

    def __init__(
        self,
        event_log: EventLog,
        records: Records,
        reconciler: Reconciler,
        admission: Admission,
        about: Callable[[Attachment, Survey], Sequence[Finding]],
        pending: Callable[[], Sequence[Pending]],
    ) -> None:
        self._event_log = event_log
        self._records = records
        self._reconciler = reconciler
        self._admission = admission
        self._about = about
        self._pending = pending

    def events(
        self,
        *,
        after: int = 0,
        since: float = 0.0,
        volume: str = "",
        guest: str = "",
        most: int = 1000,
    ) -> list[EventLogEntry]:
        if volume:
            volume = self._told_of(volume)
        guests = self._called(guest) if guest else ()
        return self._event_log.read(
            after=after, since=since, volume=volume, guests=guests, most=most
        )

    def explain(self, volume: str, guest: str | None = None) -> list[Explanation]:
        pending = self._pending()
        survey = self._reconciler.survey()
        rows = self._admission.known(volume, survey.rows, guest)
        return [self._one(row, survey, pending) for row in rows]

    def _told_of(self, volume: str) -> VolumeId:
        """The id that *volume* names, of an attachment or of an event. Raises NotFound, Refused."""
        if rows := self._admission.of(volume):
            return rows[0].key.volume
        if id := meant(volume, self._event_log.volumes()):
            return id
        raise NotFound(
            f"no volume {volume} is known on this host, nor told of in its events", hint=BY_ID
        )

    def _called(self, guest: str) -> frozenset[str]:
        """What *guest* is called in events. Raises NotFound, Refused; as a survey, if need be."""
        survey = self._reconciler.survey()
        its = _names(guest, (GuestName(row.key.guest, row.guest_name) for row in survey.rows))
        if not its and guest in self._event_log.guests():
            its = frozenset({guest})
        its = its or _names(guest, (GuestName(each.id, each.name) for each in survey.guests))
        if not its:
            raise NotFound(
                f"no guest {guest} is known on this host, nor told of in its events",
                hint=GUEST_BY_NAME,
            )
        return its

    def _one(self, row: Attachment, survey: Survey, pending: Sequence[Pending]) -> Explanation:
        """Explain *row*, as *survey* has it."""
        seen = self._reconciler.look(row, survey)
        view = detailed(
            self._reconciler.view(row, seen, self._records.trouble(row.key)), row, seen, survey
        )
        step, _, waits_for = view.next.partition(": ")
        tried = [e for e in self._event_log.read(volume=row.key.volume) if _is_of(e, row)]
        mine = next((p for p in pending if p.key == row.key), None)
        finding = next(iter(self._about(row, survey)), None)
        if not waits_for and step != "nothing":
            waits_for = view.trouble.message if view.trouble else mine.why if mine else ""
        return Explanation(
            volume=view.volume,
            guest=view.guest,
            wanted=view.wanted,
            seen=view.seen,
            step=step,
            waits_for=waits_for,
            since=_since(view, step, tried, mine),
            tries=mine.tries if mine else _failures(tried),
            due=mine.due if mine else None,
            link=view.link,
            held_by=[*view.used_by, *view.also_wanted_by],
            tried=tried[-LATEST_ENTRIES:],
            why=finding.why if finding else "",
            next=_command(finding, row) if finding else "",
        )


def _names(guest: str, guests: Iterable[GuestName]) -> frozenset[str]:
    """The ids and names of those that *guest* is. Raises Refused (it can be several)."""
    among = frozenset(guests)
    ids = recorded_as(guest, among)
    return frozenset(name for each in among if each.id in ids for name in each)


def _is_of(entry: EventLogEntry, row: Attachment) -> bool:
    return entry.volume == row.key.volume and entry.guest in (row.guest_name, row.key.guest)


def _since(view: View, step: str, tried: Sequence[EventLogEntry], pending: Pending | None) -> float:
    """When it began to wait, by the agent or else by the first failure since a success."""
    if step == "nothing":
        return 0.0
    if pending is not None:
        return time.time() - pending.age
    known = [view.trouble.at] if view.trouble else []
    failed = takewhile(lambda entry: entry.outcome not in _WELL, reversed(tried))
    return min([*known, *(entry.at for entry in failed)], default=0.0)


def _failures(tried: Sequence[EventLogEntry]) -> int:
    """How often the last step failed, as far as the event log goes back."""
    return tried[-1].times if tried and tried[-1].outcome not in _WELL else 0


def _command(finding: Finding, row: Attachment) -> str:
    if finding.check == "refused-attachment":  # its text says what to mend; this gives up
        return command("moorline", "detach", row.guest_name or row.key.guest, row.key.volume)
    return finding.next
