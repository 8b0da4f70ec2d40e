"""Takes pass after pass until an attachment is as wanted, must wait, or the deadline is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial

from moorline.core.claims import Claims
from moorline.core.expect import Expect
from moorline.core.kept_disk import must_stay, not_taken
from moorline.core.plan import Step
from moorline.core.reconciler import Pass, Reconciler
from moorline.core.records import Records
from moorline.core.retry_loop import LOCK_TIMEOUT_SECONDS, Patience, Wait, drive
from moorline.deadline import Deadline
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
from moorline.model import Attachment, Key, Level, Seen
from moorline.ports.progress import Progress, no_progress
from moorline.ports.results import Trouble

_DONE = frozenset({Step.NOTHING, Step.FORGET})
_TRIED = frozenset({Step.NOTHING, Step.ATTACH, Step.DETACH, Step.LIMIT, Step.UNLOCK})
"""Steps at which a candidate's link is ready, so that its connection can be verified."""
_WORDS = {
    Step.CONNECT: "connecting",
    Step.ATTACH: "attaching",
    Step.RENEW: "renewing",
    Step.DETACH: "detaching",
    Step.DISCONNECT: "disconnecting",
    Step.LIMIT: "limiting",
    Step.UNLOCK: "unlocking",
}
_LEAVES: Mapping[Step | None, Expect] = {
    Step.DETACH: Expect.NO_DISK_ANY_MORE,
    Step.DISCONNECT: Expect.NO_LINK_ANY_MORE,
}
_WITHDRAWAL_SECONDS = 10.0


@dataclass(slots=True)
class _Attempt:
    """One caller's (or the loop's) work on one attachment. Only its pace is remembered here."""

    key: Key
    row: Attachment | None = None
    """The attachment to serve; None: whatever is recorded as *key*."""
    patience: Patience | None = None
    progress: Progress = no_progress
    link_only: bool = False
    candidate: bool = False
    """*row* is not recorded: another attachment is, in its place."""
    loop: bool = False
    """It is a turn of the loop, which waits for no lock and gives way to callers."""
    bare: bool = False
    """Its guest was just seen to have no disk of it."""
    told: str = ""
    """The trouble that was noted last."""
    taken: list[Step] = field(default_factory=list)
    trying: Step = Step.NOTHING
    begun: Step = Step.NOTHING
    """The step that the pass under way began."""

    def about_to(self, step: Step) -> None:
        again, self.trying, self.begun = step is self.trying, step, step
        if self.row is not None and step in _WORDS and not again:
            self.progress(f"{_WORDS[step]} volume {self.key.volume}")  # again: told as a pause

    def expects(self) -> Expect:
        """What the next pass will find, as far as the one before it tells."""
        bare, self.bare = self.bare, False
        last = self.taken[-1] if self.taken else None
        return _LEAVES.get(last, Expect.NO_DISK_YET if bare else Expect.ANYTHING)

    def lock_timeout(self) -> float:
        """Seconds."""
        if self.loop:
            return 0.0
        return LOCK_TIMEOUT_SECONDS if self.patience is None else self.patience.lock_timeout()

    def wait(
        self, why: str, error: MoorlineError | None, step: Step, seen: Seen | None = None
    ) -> Wait:
        return Wait(why, error, step, bool({*self.taken} - {step}), seen)


@contextmanager
def nothing_recorded() -> Iterator[None]:
    """For code that runs before an attachment is recorded: an error in it changed nothing.

    Raises Unavailable in place of Uncertain and Failed (but not of Busy and Conflict), because
    those promise that the attachment is kept.
    """
    try:
        yield
    except (Busy, Conflict, Unavailable):
        raise
    except (Failed, Uncertain) as e:
        hint = e.hint or "nothing was recorded: repeat the command"
        raise Unavailable(e.message, hint=hint).about(e.volume, e.guest) from e


@contextmanager
def recorded() -> Iterator[None]:
    """For code that runs once an attachment is recorded: raise Failed in place of Unavailable.

    Unavailable would say that nothing was recorded.
    """
    try:
        yield
    except Unavailable as e:
        hint = e.hint or "repeat the command to go on"
        raise Failed(e.message, hint=hint).about(e.volume, e.guest) from e


@contextmanager
def done_before(what: str) -> Iterator[None]:
    """For code that runs after *what* was done: raise Uncertain for each error in it."""
    try:
        yield
    except MoorlineError as e:
        hint = e.hint or "repeat the command: it goes on"
        raise Uncertain(f"{what}, and then: {e.message}", hint=hint) from e


class Driver:
    """Drives the reconciler, for callers that wait and for the loop. Thread-safe.

    *clock*: the wall clock, for the time of troubles that people read; nothing is decided by it.
    """

    def __init__(
        self,
        records: Records,
        reconciler: Reconciler,
        claims: Claims | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._records = records
        self._reconciler = reconciler
        self._claims = claims or Claims()
        self._clock = clock

    def claim(self, row: Attachment) -> AbstractContextManager[list[Step]]:
        """Keep the loop from *row*, from before it is recorded until the call is over.

        The list that it yields gets all steps that are taken meanwhile, whoever takes them.
        """
        return self._claims.claim(row)

    def settle(
        self,
        row: Attachment,
        deadline: Deadline,
        progress: Progress = no_progress,
        *,
        persistent: bool = True,
        bare: bool = False,
    ) -> tuple[list[Step], Pass]:
        """Take steps until *row* is as wanted; return the steps and the last pass.

        *bare*: its guest was just seen to have no disk of it.

        Raises Refused and NotOurs at once, Failed and Uncertain when the *deadline* is over. If
        not *persistent*, raises Failed also when the same step of an attachment that is to come
        failed :data:`~moorline.core.retry_loop.REPEATED_FAILURES` times. The attachment stays
        recorded in each case, with its trouble.
        """
        attempt = self._attempt(row, deadline, progress, persistent=persistent)
        attempt.bare = bare
        with recorded(), self.claim(row) as steps:
            return steps, self._drive_to_the_end(attempt)

    def connect(
        self, row: Attachment, deadline: Deadline, progress: Progress = no_progress
    ) -> list[Step]:
        """Make the link of *row* without asking the hypervisor anything; return the steps.

        Raises as :meth:`settle`.
        """
        attempt = self._attempt(row, deadline, progress)
        attempt.link_only = True
        with recorded(), self.claim(row) as steps:
            self._drive_to_the_end(attempt)
            return steps

    def record(
        self,
        before: Attachment | None,
        attachment: Attachment,
        deadline: Deadline,
        progress: Progress = no_progress,
        *,
        persistent: bool = True,
    ) -> Attachment:
        """Write *attachment* in the place of *before*; return it as it is recorded.

        If *before* is wanted with another connection, that one stays recorded until the new
        one has linked the volume, its image was verified, and it agrees with the disk that is
        plugged: a connection that does not work must not replace one that does. Raises as
        :meth:`settle`; *before* is recorded as it was then.
        """
        if attachment == before:
            return before
        if before and before.want > Level.ABSENT and before.connection != attachment.connection:
            attempt = self._attempt(attachment, deadline, progress, persistent=persistent)
            attempt.candidate = True
            self._drive_to_the_end(attempt)
        return self._records.put(attachment)

    def withdraw(self, row: Attachment, before: Attachment | None) -> None:
        """Undo a refused attachment: what was *before* it is recorded again (None: nothing)."""
        row = replace(before, revision=row.revision) if before else gone(row)
        with suppress(MoorlineError):  # the caller is told the refusal; this error is in `show`
            self.settle(self._records.put(row), Deadline(_WITHDRAWAL_SECONDS))

    def push(self, row: Attachment, progress: Progress = no_progress) -> Pass | Wait:
        """Take steps until one would have to wait; trouble is noted and returned."""
        return self._drive(_Attempt(row.key, row, progress=progress))

    def turn(
        self, key: Key, told: str, stopping: Callable[[], bool] = lambda: False
    ) -> Pass | Wait:
        """Push the attachment that is recorded as *key*, for the loop; *told*: its last trouble.

        Never waits for a lock. Returns a Wait without a reason if a caller claims the attachment
        or *stopping* says so. If the hypervisor cannot be asked, the link is made all the same,
        so that it is there when the guest starts.
        """
        attempt = _Attempt(key, loop=True, told=told)
        came = self._drive(attempt, lambda: stopping() or self._claims.turns_away(key))
        if isinstance(came, Wait):
            blind = isinstance(came.error, Unavailable | Uncertain)
            if blind and came.step is Step.NOTHING:
                self._connect(attempt)
        return came

    def _attempt(
        self,
        row: Attachment,
        deadline: Deadline,
        progress: Progress,
        *,
        persistent: bool = True,
    ) -> _Attempt:
        # A detach is tried until the deadline: given up earlier, it would be left half done.
        persistent = persistent or row.want is Level.ABSENT
        patience = Patience(deadline, progress, persistent=persistent)
        return _Attempt(row.key, row, patience, progress)

    def _drive_to_the_end(self, attempt: _Attempt) -> Pass:
        """Return the last pass; raise why it is not as wanted if it is not."""
        came = self._drive(attempt)
        if isinstance(came, Wait):
            raise _given_up(attempt, came) from came.error
        return came

    def _drive(self, attempt: _Attempt, leave: Callable[[], bool] = lambda: False) -> Pass | Wait:
        """Drive *attempt*; *leave*, asked after each step: whether to stop there."""
        came = drive(partial(self._once, attempt, leave), attempt.patience)
        if isinstance(came, Wait) and came.step is Step.WAIT:
            self._note(attempt, came)  # waiting is noted as trouble only when the wait is given up
        return came

    def _once(self, attempt: _Attempt, leave: Callable[[], bool]) -> Pass | Wait | None:
        """Take one pass; None: it took a step, and another pass is needed."""
        turned_away = self._claims.turned_away(attempt.key)
        attempt.begun = Step.NOTHING
        try:
            done = self._advance(attempt)
        except MoorlineError as e:
            came: Pass | Wait | None = attempt.wait(str(e), e, attempt.begun)
        else:
            came = self._came_of(attempt, done, turned_away)
        if came is None and leave():
            return attempt.wait("", None, Step.NOTHING)
        if isinstance(came, Wait):
            if came.error is not None:
                self._note(attempt, came)
            if attempt.patience is not None:
                self._claims.waits(attempt.key, attempt.patience.tries + 1, came.why)
        return came

    def giving(self, rows: Iterable[Attachment]) -> AbstractContextManager[None]:
        """As :meth:`moorline.core.file_checks.FileChecks.giving`."""
        return self._reconciler.files.giving(rows)

    def _advance(self, attempt: _Attempt) -> Pass:
        row, timeout = attempt.row, attempt.lock_timeout()
        if row is not None and attempt.candidate:
            done = self._reconciler.prepare(row, attempt.about_to, timeout)
            if done.step in _TRIED:
                self._reconciler.files.verify(row)
            return done
        if row is not None and attempt.link_only:
            return self._reconciler.connect(row, attempt.about_to, timeout)
        return self._reconciler.advance(attempt.key, attempt.about_to, timeout, attempt.expects())

    def _came_of(self, attempt: _Attempt, done: Pass, turned_away: int) -> Pass | Wait | None:
        """What *done* means for the attempt; None: it took a step, and another pass is needed."""
        step = done.step
        if done.row is None or step in (_TRIED if attempt.candidate else _DONE):
            self._finish(attempt, done, turned_away)
            return done
        if step is Step.PARK and done.row.want < Level.ATTACHED and must_stay(done.seen):
            if Step.DETACH in attempt.taken:  # whether it goes is the guest's affair by now
                return attempt.wait(done.reason, None, Step.WAIT, done.seen)
            return attempt.wait(done.reason, not_taken(done.row, done.seen), step, done.seen)
        if step is Step.PARK:
            family = Refused if attempt.candidate and done.seen.elsewhere else NotOurs
            return attempt.wait(done.reason, family(done.reason), step, done.seen)
        if step is Step.WAIT:
            return attempt.wait(done.reason, None, step, done.seen)
        again = step in attempt.taken
        self._took(attempt, step)
        if not again:
            return None
        # The step was taken before and is needed again: it did not have its effect yet.
        why = "the guest has not let go of the disk yet"
        if step is not Step.DETACH:
            why = f"there is nothing to be seen of what was done ({step.value})"
        return attempt.wait(why, None, step, done.seen)

    def _took(self, attempt: _Attempt, step: Step) -> None:
        attempt.taken.append(step)
        self._claims.took(attempt.key, step)

    def _finish(self, attempt: _Attempt, done: Pass, turned_away: int) -> None:
        if attempt.link_only or attempt.candidate:
            return
        if done.step is Step.FORGET:
            self._took(attempt, done.step)
        elif done.row is not None:
            with suppress(MoorlineError):  # such as a full disk: a sweep clears the trouble later
                self._records.note(done.row, None)
        self._claims.as_wanted(attempt.key, turned_away)

    def _connect(self, attempt: _Attempt) -> None:
        with suppress(MoorlineError):
            row = self._records.get(attempt.key)
            if row is not None and row.want > Level.ABSENT:
                self._reconciler.connect(row, attempt.about_to, attempt.lock_timeout())

    def _note(self, attempt: _Attempt, wait: Wait) -> None:
        """Record what went wrong, for `show`, unless it is what was recorded last."""
        # Who waits has done nothing that could have happened: it is what the caller is told, too.
        error = wait.error or Failed(wait.why)
        # A candidate's trouble is not that of the recorded attachment; a lock is soon free.
        if attempt.candidate or isinstance(error, Busy) or str(error) == attempt.told:
            return
        attempt.told = str(error)
        step = wait.step.value if wait.step in (Step.WAIT, Step.PARK) else ""
        trouble = Trouble(step, error.kind, str(error), self._clock())
        with suppress(MoorlineError):  # the error itself matters more than its record
            if (row := attempt.row or self._records.get(attempt.key)) is not None:
                self._records.note(row, trouble)


def _given_up(attempt: _Attempt, wait: Wait) -> MoorlineError:
    """The error that a caller gets for an attempt that ended in *wait*."""
    error, row = wait.error, attempt.row
    assert row is not None, "only the loop has none, and it waits"
    who = row.key.volume, row.guest_name
    if isinstance(error, Refused | NotOurs):
        return type(error)(_unfinished(attempt, row, error.message), hint=error.hint).about(*who)
    family = Uncertain if isinstance(error, Uncertain) else Failed
    kept = "" if attempt.candidate else "the attachment is kept: "
    return family(
        _unfinished(attempt, row, wait.why),
        hint=f"{kept}repeat the command to go on, `moorline show {row.key.volume}` tells more",
    ).about(*who)


def _unfinished(attempt: _Attempt, row: Attachment, why: str) -> str:
    """Say what is not done, for which volume and guest, and why."""
    if attempt.candidate:
        return f"volume {row.key.volume} keeps the connection that it had: {why}"
    state = {
        Level.ABSENT: "not yet gone from",
        Level.CONNECTED: "not connected for",
        Level.ATTACHED: "not attached to",
    }[row.want]
    return f"volume {row.key.volume} is {state} {row.guest_name}: {why}"


def gone(row: Attachment) -> Attachment:
    """*row* as an attachment that is to be absent."""
    return replace(row, want=Level.ABSENT)
