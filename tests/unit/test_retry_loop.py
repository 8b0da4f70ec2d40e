"""How long a caller waits, and what he is promised when he has waited enough."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from moorline.api import Moorline
from moorline.core.driver import Driver
from moorline.core.locks import Locks
from moorline.core.reconciler import Reconciler
from moorline.core.retry_loop import Patience, Wait, drive
from moorline.deadline import Clock, Deadline
from moorline.errors import Failed, NotOurs, Refused, Unavailable, Uncertain
from moorline.exit_codes import exit_code
from moorline.model import GuestId, Level
from moorline.testing.faults import Fault
from moorline.testing.toys import BASE, ToyHypervisor, ToyShare
from tests.support.environment import bare
from tests.support.rig import Rig, connection

S1 = str(BASE / "s1")


@pytest.fixture
def rig() -> Rig:
    return Rig("g1")


class Hours:
    """Time that passes when somebody sleeps."""

    def __init__(self, then: Callable[[float], None] = lambda now: None) -> None:
        self.now = 0.0
        self._then = then

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self._then(self.now)

    def clock(self) -> Clock:
        return Clock(lambda: self.now, self.sleep)


def settle(rig: Rig, hours: Hours, timeout: float = 60.0, *, persistent: bool) -> None:
    rig.attachment("a", "g1", Level.ATTACHED)
    (row,) = rig.records.all()
    deadline = Deadline(timeout, hours.clock())
    Driver(rig.records, rig.reconciler()).settle(row, deadline, persistent=persistent)


# --- what cannot come true ------------------------------------------------------


def test_who_gave_no_time_is_not_kept_waiting_for_what_fails_alike(rig: Rig) -> None:
    rig.world.hung.add("s1")
    hours = Hours()
    with pytest.raises(Failed, match="s1 cannot be mounted") as error:
        settle(rig, hours, persistent=False)
    assert "the attachment is kept" in error.value.hint
    assert 3 < hours.now <= 10
    assert [row.want for row in rig.records.all()] == [Level.ATTACHED]


def test_who_gave_a_time_has_it(rig: Rig) -> None:
    rig.world.hung.add("s1")
    hours = Hours()
    with pytest.raises(Failed):
        settle(rig, hours, persistent=True)
    assert hours.now > 40


def test_what_comes_back_in_time_is_waited_for(rig: Rig) -> None:
    rig.world.hung.add("s1")
    settle(rig, Hours(lambda now: rig.world.hung.clear() if now > 2 else None), persistent=False)
    rig.check({("a", "g1"): Level.ATTACHED})


def test_what_may_have_happened_is_looked_at_to_the_end(rig: Rig) -> None:
    rig.world.faults.plan(*[(number, Fault.UNDONE) for number in range(1, 99)])
    hours = Hours()
    with pytest.raises(Uncertain):
        settle(rig, hours, persistent=False)
    assert hours.now > 40


def test_a_service_that_is_away_is_waited_for(rig: Rig) -> None:
    """libvirtd takes longer than a mount command to be there after a reboot."""
    rig.world.blind = True
    hours = Hours()
    with pytest.raises(Failed):
        settle(rig, hours, persistent=False)
    assert hours.now > 40


def test_a_guest_that_does_not_let_go_is_waited_for(rig: Rig) -> None:
    rig.owner().attachments.attach("g1", connection())
    rig.world.guests[GuestId("g1")].deaf = True
    rig.attachment("a", "g1", Level.ABSENT)
    (row,) = rig.records.all()
    hours = Hours()
    deadline = Deadline(60.0, hours.clock())
    with pytest.raises(Failed):
        Driver(rig.records, rig.reconciler()).settle(row, deadline, persistent=False)
    assert hours.now > 40


def test_an_attach_without_a_time_is_such_a_caller(rig: Rig) -> None:
    """The façade's default is told apart from 60 s that somebody asked for."""
    outcome = rig.owner().attachments.attach("g1", connection(), timeout=None)
    assert outcome.view.seen == "attached"


# --- the one loop ------------------------------------------------------------


def test_who_has_no_patience_is_told_at_once_why_it_waits() -> None:
    tries: list[int] = []

    def once() -> int | Wait | None:
        tries.append(len(tries))
        return [None, None, Wait("no route"), 7][len(tries) - 1]

    assert drive(once) == Wait("no route")
    assert len(tries) == 3
    assert drive(once) == 7


def test_pauses_grow_until_a_step_is_taken() -> None:
    hours = Hours()
    pauses: list[float] = []
    came = iter([*[Wait("no route")] * 4, None, Wait("no route"), True])

    def once() -> bool | Wait | None:
        pauses.append(hours.now - sum(pauses))
        return next(came)

    assert drive(once, Patience(Deadline(60.0, hours.clock()))) is True
    assert 0.4 <= pauses[4] <= 0.8
    assert pauses[5] == 0.0
    assert 0.05 <= pauses[6] <= 0.1


def test_a_lock_is_waited_for_no_longer_than_the_deadline_but_for_who_only_looks() -> None:
    hours = Hours()
    patience = Patience(Deadline(40.0, hours.clock()))
    timeouts = []
    for _ in range(5):
        timeouts.append(patience.lock_timeout())
        hours.now += 15.0
    assert timeouts == [30.0, 25.0, 10.0, 1.0, 1.0]


def test_whose_time_is_over_does_not_wait_for_anothers_step(rig: Rig) -> None:
    """As when another attachment's mount takes its time: 30 s were waited for its lock."""
    rig.attachment("a", "g1", Level.ATTACHED)
    (row,) = rig.records.all()
    timeouts: list[float | None] = []

    class Watched(Locks):
        def hold(self, name: str, timeout: float | None = None) -> AbstractContextManager[None]:
            timeouts.append(timeout)
            return super().hold(name, 0.0)

    locks = Watched()
    reconciler = Reconciler(
        rig.records, {"toy": ToyShare(rig.world)}, ToyHypervisor(rig.world), locks
    )
    with Locks.hold(locks, f"link {row.link}"), pytest.raises(Failed, match="still under way"):
        Driver(rig.records, reconciler).settle(row, Deadline(0.0))
    assert timeouts == [1.0, 1.0]
    assert rig.records.trouble(row.key) is None, "that it is occupied is no trouble of its own"


def test_a_released_disk_is_asked_for_again_in_peace_and_told(rig: Rig) -> None:
    rig.owner().attachments.attach("g1", connection())
    (row,) = rig.records.all()
    rig.records.release(row, f"{S1}/a")
    toy = rig.world.guests[GuestId("g1")]
    toy.deaf = True
    told: list[str] = []

    def hears(what: str) -> None:
        told.append(what)
        if len(told) == 3:
            toy.deaf = False
            toy.live.clear()

    rig.owner().attachments.detach("g1", "a", progress=hears)
    assert len(told) == 3
    assert told[0].startswith("g1 has not let go of volume a yet; looking again in ")
    assert rig.records.released() == {}


# --- what is promised --------------------------------------------------------


def test_failed_promises_an_attachment_and_unavailable_that_there_is_none(rig: Rig) -> None:
    rig.world.blind = True
    for dry_run in (True, False):
        with pytest.raises(Unavailable) as error:
            rig.owner().attachments.attach("g1", connection(), dry_run=dry_run, timeout=0)
        assert exit_code(error.value) == 11
    assert rig.records.all() == []
    rig.world.blind = False
    rig.attachment("a", "g1", Level.ATTACHED)
    (row,) = rig.records.all()
    rig.world.blind = True
    with pytest.raises(Failed, match="not attached") as failed:
        Driver(rig.records, rig.reconciler()).settle(row, Deadline(0.0))
    assert exit_code(failed.value) == 5


@pytest.mark.parametrize("error", [Uncertain, Failed, Unavailable])
def test_a_look_that_is_uncertain_is_no_change_that_is(rig: Rig, error: type[Exception]) -> None:
    """libvirt hangs before anything was asked of it: 6 would promise an attachment, too."""

    class Mute:
        """A hypervisor that does not answer when it is asked for a guest."""

        def __init__(self, owner: object) -> None:
            self._owner = owner

        def find(self, guest: str) -> object:
            raise error("libvirt did not answer")

        def __getattr__(self, name: str) -> object:
            return getattr(self._owner, name)

    hypervisor: object = Mute(ToyHypervisor(rig.world))
    moorline = Moorline(rig.records, rig.reconciler(), hypervisor, environment=bare())  # type: ignore[arg-type]
    for do in (
        lambda: moorline.attachments.attach("g1", connection()),
        lambda: moorline.attachments.detach("g1", "a"),
    ):
        with pytest.raises(Unavailable, match="libvirt did not answer"):
            do()
    assert rig.records.all() == []


def test_what_is_final_is_final(rig: Rig) -> None:
    rig.world.mounts[S1] = "theirs"
    with pytest.raises(NotOurs):
        settle(rig, Hours(), persistent=False)
    rig.world.mounts.clear()
    rig.world.missing.add(f"{S1}/a")
    with pytest.raises(Refused):
        settle(rig, Hours(), persistent=False)
