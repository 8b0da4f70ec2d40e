"""Pass after pass until an attachment is as wanted, or the time is over."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

from moorline.core.pace import backoff
from moorline.core.plan import Step
from moorline.core.reconciler import Pass, Reconciler
from moorline.core.records import Records
from moorline.deadline import CLOCK, Clock
from moorline.errors import (
    Busy,
    Conflict,
    Failed,
    MoorlineError,
    NotOurs,
    Refused,
    Unavailable,
    Uncertain,
)
from moorline.model import Attachment, Level
from moorline.ports.api import Progress, no_progress
from moorline.ports.results import Trouble

_DONE = frozenset({Step.NOTHING, Step.FORGET})
_TRIED = frozenset({Step.NOTHING, Step.ATTACH, Step.DETACH})
"""With no more to do for a link, a new connection can be verified."""
_WORDS = {
    Step.CONNECT: "connecting",
    Step.ATTACH: "attaching",
    Step.DETACH: "detaching",
    Step.DISCONNECT: "disconnecting",
}
_REPEATED_FAILURES = 5
"""Failures of one step in a row, after which a caller who said nothing is not kept waiting..."""
_REPEATED_FAILURE_SECONDS = 10.0
"""...if they go on for so many seconds: what is restarted is mostly back by then."""


@dataclass(slots=True)
class _Attempt:
    """One call's patience with one attachment. Only its pace is remembered here."""

    row: Attachment
    end: float
    progress: Progress
    clock: Clock
    link_only: bool = False
    candidate: bool = False
    """It is not recorded: another one stands in its place."""
    stubborn: bool = True
    """To the end, however often the same step fails."""
    tries: int = 0
    steps: list[Step] = field(default_factory=list)
    trying: Step = Step.NOTHING
    failed: list[tuple[Step, float]] = field(default_factory=list)
    """When the step that failed last has failed, since anything else came of a pass."""

    def took(self, step: Step) -> None:
        self.tries = 0
        self.failed.clear()
        self.steps.append(step)

    def about_to(self, step: Step) -> None:
        again, self.trying = step is self.trying, step
        if step in _WORDS and not again:  # repeated, it is the pause that is told
            self.progress(f"{_WORDS[step]} volume {self.row.key.volume}")

    def pause(self, why: str, error: MoorlineError | None = None) -> None:
        """Wait before the next pass, or raise what became of this call."""
        # A guest is asked again about once a second; what failed is left in peace longer.
        delay = backoff(self.tries) if error else backoff(self.tries, longest=1.0)
        self.tries += 1
        until = self.clock.now() + delay
        if until >= self.end or self._fails_alike(error, until):
            family = Uncertain if isinstance(error, Uncertain) else Failed
            kept = "" if self.candidate else "the attachment is kept: "
            raise family(
                self.unfinished(why),
                hint=f"{kept}repeat the command to go on,"
                f" `moorline show {self.row.key.volume}` tells more",
            ) from error
        self.progress(f"{why}; looking again in {delay:.1f} s")
        self.clock.sleep(delay)

    def _fails_alike(self, error: MoorlineError | None, until: float) -> bool:
        """Whether the same step fails again and again, and trying *until* then will not help.

        Clients' exit codes and words are not known well enough to tell what can come
        true later from what cannot; how often it fails can be counted.
        """
        if not isinstance(error, Failed) or isinstance(error, Busy | Conflict | Unavailable):
            self.failed.clear()
            return False
        if self.failed and self.failed[-1][0] is not self.trying:
            self.failed.clear()
        self.failed.append((self.trying, self.clock.now()))
        if self.stubborn or self.row.want is Level.ABSENT:
            return False
        return (
            len(self.failed) >= _REPEATED_FAILURES
            and until - self.failed[0][1] >= _REPEATED_FAILURE_SECONDS
        )

    def unfinished(self, why: str) -> str:
        """Say what is not done, and why."""
        if self.candidate:
            return f"volume {self.row.key.volume} keeps the connection that it had: {why}"
        return unfinished(self.row, why)


@contextmanager
def nothing_recorded() -> Iterator[None]:
    """What cannot be told in here changed nothing: say so, as "failed" promises an attachment.

    Raises Unavailable instead of Uncertain, and of Failed but for Busy and Conflict.
    """
    try:
        yield
    except (Busy, Conflict, Unavailable):
        raise
    except (Failed, Uncertain) as e:
        hint = e.hint or "nothing was recorded: repeat the command"
        raise Unavailable(e.message, hint=hint) from e


@contextmanager
def recorded() -> Iterator[None]:
    """Raise Failed instead of Unavailable, which would say that no attachment stands."""
    try:
        yield
    except Unavailable as e:
        raise Failed(e.message, hint=e.hint or "repeat the command to go on") from e


@contextmanager
def done_before(what: str) -> Iterator[None]:
    """Raise Uncertain for whatever fails in here: *what* was done before."""
    try:
        yield
    except MoorlineError as e:
        hint = e.hint or "repeat the command: it goes on"
        raise Uncertain(f"{what}, and then: {e.message}", hint=hint) from e


class Driver:
    """Drives the reconciler for callers that wait for a result."""

    def __init__(self, records: Records, reconciler: Reconciler, clock: Clock = CLOCK) -> None:
        self._records = records
        self._reconciler = reconciler
        self._clock = clock

    def settle(
        self,
        row: Attachment,
        timeout: float,
        progress: Progress = no_progress,
        *,
        stubborn: bool = True,
    ) -> tuple[list[Step], Pass]:
        """Take steps until *row* is as wanted; return them and the last pass.

        Raises Refused and NotOurs at once, Failed and Uncertain when *timeout*
        seconds are over; not *stubborn*: Failed also where the same step of an attachment
        that comes has failed again and again for some seconds.
        The attachment stands in each case, its trouble noted.
        """
        with recorded():
            return self._drive(self._attempt(row, timeout, progress, stubborn=stubborn))

    def connect(
        self, row: Attachment, timeout: float, progress: Progress = no_progress
    ) -> list[Step]:
        """Make the link of *row* without asking the hypervisor anything; return the steps.

        Raises as :meth:`settle`.
        """
        attempt = self._attempt(row, timeout, progress, link_only=True)
        with recorded():
            return self._drive(attempt)[0]

    def record(
        self,
        before: Attachment | None,
        attachment: Attachment,
        timeout: float = 60.0,
        progress: Progress = no_progress,
        *,
        stubborn: bool = True,
    ) -> tuple[Attachment, list[Step]]:
        """Write *attachment* in the place of *before*; return it as it is recorded, and the steps.

        Where *before* stands and has another connection, that one stays until the
        new one has linked the volume, its image was verified, and it agrees with the
        disk that is plugged: a connection that does not work would lose the one that
        does. Raises as :meth:`settle`, with *before* recorded as it was.
        """
        if attachment == before:
            return before, []
        steps: list[Step] = []
        if before and before.want > Level.ABSENT and before.connection != attachment.connection:
            attempt = self._attempt(
                attachment, timeout, progress, candidate=True, stubborn=stubborn
            )
            steps = self._drive(attempt)[0]
        return self._records.put(attachment), steps

    def withdraw(self, row: Attachment, before: Attachment | None) -> None:
        """Put a refused attachment back to what was *before* it: it leaves nothing behind."""
        row = replace(before, revision=row.revision) if before else gone(row)
        try:
            self.settle(self._records.put(row), timeout=10.0)
        except MoorlineError as e:
            # The refusal is what the caller must hear; `show` tells of this.
            self.note(row, e)

    def _attempt(
        self,
        row: Attachment,
        timeout: float,
        progress: Progress,
        *,
        link_only: bool = False,
        candidate: bool = False,
        stubborn: bool = True,
    ) -> _Attempt:
        end = self._clock.now() + timeout
        return _Attempt(row, end, progress, self._clock, link_only, candidate, stubborn)

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

    def push(self, row: Attachment, progress: Progress = no_progress) -> Pass | MoorlineError:
        """Take steps as far as they go without waiting; errors are noted and returned."""
        attempt = self._attempt(row, 0.0, progress)
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
        if not attempt.candidate:  # the attachment that stands has no such trouble
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
    """The attachment as it was when it was dropped."""
    return replace(row, want=Level.ABSENT)
