"""Says in plain English how one volume stands, what it waits for, and what to do."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from typing import Any

from moorline.care.eventlog import Journal, JournalEntry
from moorline.care.findings import command
from moorline.core.pace import Pending
from moorline.core.reconciler import Reconciler
from moorline.core.records import Records
from moorline.core.survey import Survey
from moorline.core.views import View, detailed
from moorline.model import Attachment
from moorline.ports.inspection import Finding

_WELL = ("done", "seen")
LATEST = 5
"""Entries of the journal that are told."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """How one attachment stands."""

    volume: str
    guest: str
    wanted: str
    seen: str
    step: str
    """The next step; ``nothing`` if it is as wished."""
    waits_for: str
    since: float
    """Since when, seconds since the epoch; 0: nothing waits, or it is not known."""
    tries: int
    due: float | None
    """Seconds until the agent's next try; None: no agent has it in hand."""
    link: str
    held_by: list[str]
    """Guests that name a path on the link, and other wishes for it."""
    tried: list[JournalEntry]
    """What was done last, oldest first."""
    why: str
    """Why it matters, where somebody must act; ''."""
    next: str
    """The next command to run; '' if there is nothing to do."""

    def to_dict(self) -> dict[str, Any]:
        """The same facts for JSON and YAML; the keys are stable."""
        return asdict(self)


class Explainer:
    """Puts together what is wished, seen, planned and known of the past."""

    def __init__(
        self,
        journal: Journal,
        records: Records,
        reconciler: Reconciler,
        about: Callable[[Attachment, Survey], Sequence[Finding]],
    ) -> None:
        self._journal = journal
        self._records = records
        self._reconciler = reconciler
        self._about = about

    def explain(self, row: Attachment, survey: Survey, pending: Sequence[Pending]) -> Explanation:
        """Explain *row*, as *survey* has it."""
        seen = self._reconciler.look(row, survey)
        view = detailed(row, seen, self._records.trouble(row.key), survey)
        step, _, waits_for = view.next.partition(": ")
        tried = [e for e in self._journal.read(volume=row.key.volume) if _is_of(e, row)]
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
            tried=tried[-LATEST:],
            why=finding.why if finding else "",
            next=_command(finding, row) if finding else "",
        )


def _is_of(entry: JournalEntry, row: Attachment) -> bool:
    return entry.volume == row.key.volume and entry.guest in (row.guest_name, row.key.guest)


def _since(view: View, step: str, tried: Sequence[JournalEntry], pending: Pending | None) -> float:
    """When the agent found that it waits; else the first failure that nothing has ended yet."""
    if step == "nothing":
        return 0.0
    if pending is not None:
        return time.time() - pending.age
    known = [view.trouble.at] if view.trouble else []
    failed = takewhile(lambda entry: entry.outcome not in _WELL, reversed(tried))
    return min([*known, *(entry.at for entry in failed)], default=0.0)


def _failures(tried: Sequence[JournalEntry]) -> int:
    """How often the last step failed, at least."""
    return tried[-1].times if tried and tried[-1].outcome not in _WELL else 0


def _command(finding: Finding, row: Attachment) -> str:
    if finding.check == "refused-wish":  # what is to be cured is said: else take it back
        return command("moorline", "detach", row.guest_name or row.key.guest, row.key.volume)
    return finding.next
