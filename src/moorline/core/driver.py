"""Pass after pass until an attachment is as wished, or the time is over."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace

from moorline.core.pace import backoff
from moorline.core.plan import Step
from moorline.core.reconciler import Pass, Reconciler
from moorline.core.records import Records, Trouble
from moorline.errors import Failed, MoorlineError, NotOurs, Refused, Uncertain
from moorline.model import Attachment, Level

Progress = Callable[[str], None]
_DONE = frozenset({Step.NOTHING, Step.FORGET})
_TRIED = frozenset({Step.NOTHING, Step.ATTACH, Step.DETACH})
"""With no more to do for a link, a new connection can be verified."""
_WORDS = {
    Step.CONNECT: "connecting",
    Step.ATTACH: "attaching",
    Step.DETACH: "detaching",
    Step.DISCONNECT: "disconnecting",
}


def silent(_: str) -> None:
    """The progress of somebody who does not want to know."""


@dataclass(slots=True)
class _Attempt:
    """One call's patience with one attachment. Only its pace is remembered here."""

    row: Attachment
    end: float
    progress: Progress
    link_only: bool = False
    candidate: bool = False
    """It is not recorded: another one stands in its place."""
    tries: int = 0
    steps: list[Step] = field(default_factory=list)

    def took(self, step: Step) -> None:
        self.tries = 0
        self.steps.append(step)

    def about_to(self, step: Step) -> None:
        if step in _WORDS:
            self.progress(f"{_WORDS[step]} volume {self.row.key.volume}")

    def pause(self, why: str, error: MoorlineError | None = None) -> None:
        """Wait before the next pass, or raise what became of this call."""
        # A guest is asked again about once a second; what failed is left in peace longer.
        delay = backoff(self.tries) if error else backoff(self.tries, longest=1.0)
        self.tries += 1
        if time.monotonic() + delay >= self.end:
            family = Uncertain if isinstance(error, Uncertain) else Failed
            kept = "" if self.candidate else "the wish is kept: "
            raise family(
                self.unfinished(why),
                hint=f"{kept}repeat the command to go on,"
                f" `moorline show {self.row.key.volume}` tells more",
            ) from error
        self.progress(f"{why}; looking again in {delay:.1f} s")
        time.sleep(delay)

    def unfinished(self, why: str) -> str:
        """Say what is not done, and why."""
        if self.candidate:
            return f"volume {self.row.key.volume} keeps the connection that it had: {why}"
        return unfinished(self.row, why)


class Settler:
    """Drives the reconciler for callers that wait for a result."""

    def __init__(self, records: Records, reconciler: Reconciler) -> None:
        self._records = records
        self._reconciler = reconciler

    def settle(
        self, row: Attachment, timeout: float, progress: Progress = silent
    ) -> tuple[list[Step], Pass]:
        """Take steps until *row* is as wished; return them and the last pass.

        Raises Refused and NotOurs at once, Failed and Uncertain when *timeout*
        seconds are over. The wish stands in each case, its trouble noted.
        """
        return self._drive(_Attempt(row, time.monotonic() + timeout, progress))

    def connect(self, row: Attachment, timeout: float, progress: Progress = silent) -> list[Step]:
        """Make the link of *row* without asking the hypervisor anything; return the steps.

        Raises as :meth:`settle`.
        """
        attempt = _Attempt(row, time.monotonic() + timeout, progress, link_only=True)
        return self._drive(attempt)[0]

    def record(
        self,
        before: Attachment | None,
        wish: Attachment,
        timeout: float = 60.0,
        progress: Progress = silent,
    ) -> tuple[Attachment, list[Step]]:
        """Write *wish* in the place of *before*; return it as it is recorded, and the steps.

        Where *before* stands and has another connection, that one stays until the
        new one has linked the volume, its image was verified, and it agrees with the
        disk that is plugged: a connection that does not work would lose the one that
        does. Raises as :meth:`settle`, with *before* recorded as it was.
        """
        if wish == before:
            return before, []
        steps: list[Step] = []
        if before and before.want > Level.ABSENT and before.connection != wish.connection:
            attempt = _Attempt(wish, time.monotonic() + timeout, progress, candidate=True)
            steps = self._drive(attempt)[0]
        return self._records.put(wish), steps

    def withdraw(self, row: Attachment, before: Attachment | None) -> None:
        """Put a refused wish back to what was *before* it, so that it leaves nothing behind."""
        row = replace(before, revision=row.revision) if before else gone(row)
        try:
            self.settle(self._records.put(row), timeout=10.0)
        except MoorlineError as e:
            # The refusal is what the caller must hear; `show` tells of this.
            self.note(row, e)

    def _drive(self, attempt: _Attempt) -> tuple[list[Step], Pass]:
        while True:
            done = self._advance(attempt)
            if done is None:
                continue
            if done.step in (_TRIED if attempt.candidate else _DONE):
                return self._finish(attempt, done)
            if done.step is Step.PARK:
                family = Refused if attempt.candidate and done.seen.elsewhere else NotOurs
                error = family(attempt.unfinished(done.reason))
                self._note(attempt, error, done.step)
                raise error
            if done.step is Step.WAIT:
                attempt.pause(done.reason)
            elif done.step is Step.DETACH and attempt.steps[-1:] == [Step.DETACH]:
                attempt.pause("the guest has not let go of the disk yet")
            else:
                attempt.took(done.step)

    def push(self, row: Attachment, progress: Progress = silent) -> Pass | MoorlineError:
        """Take steps as far as they go without waiting; errors are noted and returned."""
        attempt = _Attempt(row, time.monotonic(), progress)
        for _ in range(len(Step)):
            try:
                done = self._reconciler.advance(row.key, attempt.about_to)
            except MoorlineError as e:
                self.note(row, e)
                return e
            if done.step in _DONE or done.step in (Step.WAIT, Step.PARK):
                break
        return done

    def note(self, row: Attachment, error: MoorlineError, step: Step | None = None) -> None:
        """Write down what went wrong, for `show`."""
        trouble = Trouble(step.value if step else "", error.kind, str(error), time.time())
        with suppress(MoorlineError):  # the error itself matters more than a note of it
            self._records.note(row, trouble)

    def _advance(self, attempt: _Attempt) -> Pass | None:
        try:
            if attempt.candidate:
                return self._prepare(attempt)
            if attempt.link_only:
                return self._reconciler.connect(attempt.row, attempt.about_to)
            return self._reconciler.advance(attempt.row.key, attempt.about_to)
        except (Failed, Uncertain) as e:
            self._note(attempt, e)
            attempt.pause(str(e), e)
            return None
        except (Refused, NotOurs) as e:
            self._note(attempt, e)
            raise type(e)(attempt.unfinished(e.message), hint=e.hint) from e

    def _prepare(self, attempt: _Attempt) -> Pass:
        done = self._reconciler.prepare(attempt.row, attempt.about_to)
        if done.step in _TRIED:
            self._reconciler.verify(attempt.row)
        return done

    def _note(self, attempt: _Attempt, error: MoorlineError, step: Step | None = None) -> None:
        if not attempt.candidate:  # the wish that stands has no such trouble
            self.note(attempt.row, error, step)

    def _finish(self, attempt: _Attempt, done: Pass) -> tuple[list[Step], Pass]:
        if done.step is Step.FORGET:
            attempt.took(done.step)
        elif done.row is not None and not (attempt.link_only or attempt.candidate):
            self._records.note(done.row, None)
        return attempt.steps, done


def unfinished(row: Attachment, why: str) -> str:
    """Say what is not done, for which volume and guest, and why."""
    state = {
        Level.ABSENT: "not yet gone from",
        Level.CONNECTED: "not connected for",
        Level.ATTACHED: "not attached to",
    }[row.want]
    return f"volume {row.key.volume} is {state} {row.guest_name}: {why}"


def gone(row: Attachment) -> Attachment:
    """The wish as it was when it was dropped."""
    return replace(row, want=Level.ABSENT)
