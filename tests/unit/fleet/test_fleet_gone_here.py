"""On a host of a fleet: what is not known there may be elsewhere, and is never told to be gone."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext

import pytest
from click.testing import CliRunner, Result

from moorline.api import Moorline
from moorline.cli.commands import main
from moorline.cli.common import Common
from moorline.errors import NotFound, Refused
from moorline.fleet.host_memory import Mark, Marks
from moorline.fleet.records import Role
from moorline.fleet.unattended import Unattended
from moorline.model import GuestId
from moorline.testing.toys import ToyGuest, ToyHypervisor
from tests.support.environment import bare
from tests.support.rig import Rig, connection
from tests.support.toy_machines import ToyLifecycle

HERE = "11111111-1111-4111-8111-111111111111"
GONE = "22222222-2222-4222-8222-222222222222"
VOLUME = "3f2a9c4e-1111-4222-8333-abcdefabcdef"
DETACH = ("detach", GONE, VOLUME)
WAIT = ("wait", VOLUME, "--for", "detached", "--timeout", "0")
Run = Callable[..., Result]


class Member(Rig):
    """A host with one guest; *fleet*: whether it is of a fleet."""

    def __init__(self, *, fleet: bool = True) -> None:
        super().__init__()
        self.world.guests = {GuestId(HERE): ToyGuest("a1")}
        self.fleet = fleet
        self.marks = Marks(self.store, "h1")

    def owner(self) -> Moorline:
        guarded = {"guard": Unattended(self.marks, lambda: "1")} if self.fleet else {}
        machines = ToyLifecycle(self.world)
        return Moorline(
            self.records,
            self.reconciler(),
            ToyHypervisor(self.world),
            machines,
            environment=bare(),
            **guarded,
        )


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    def run(host: Member, *words: str) -> Result:
        monkeypatch.setattr(Common, "open", lambda *_, **__: nullcontext(host.owner()))
        return CliRunner().invoke(main, list(words))

    return run


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (DETACH, f"moorline fleet detach {GONE} {VOLUME}"),
        ((*DETACH, "--dry-run"), f"moorline fleet detach {GONE} {VOLUME}"),
        (("remove", GONE), "moorline fleet guests"),
        (("remove", GONE, "--dry-run"), "moorline fleet guests"),
        (WAIT, f"moorline fleet show {VOLUME}"),
        ((*WAIT, "--guest", GONE), "moorline fleet guests"),
        (("show", VOLUME), f"moorline fleet show {VOLUME}"),
        (("show", VOLUME, "--guest", GONE), f"moorline fleet detach {GONE} {VOLUME}"),
        (("list", GONE), "moorline fleet guests"),
    ],
)
def test_what_may_be_on_another_host_is_not_told_to_be_gone(
    run: Run, words: tuple[str, ...], hint: str
) -> None:
    told = run(Member(), *words, "-o", "json")
    assert (told.exit_code, told.stdout) == (3, ""), told.output
    assert json.loads(told.stderr)["hint"] == hint
    assert json.loads(told.stderr)["error"] == "refused"


@pytest.mark.parametrize("words", [DETACH, ("remove", GONE), WAIT, (*WAIT, "--guest", GONE)])
def test_on_a_host_of_no_fleet_it_is_gone(run: Run, words: tuple[str, ...]) -> None:
    assert run(Member(fleet=False), *words).exit_code == 0


@pytest.mark.parametrize("words", [("show", VOLUME), ("list", GONE)])
def test_on_a_host_of_no_fleet_it_is_not_known(run: Run, words: tuple[str, ...]) -> None:
    assert run(Member(fleet=False), *words).exit_code == 4


@pytest.mark.parametrize("guest", [HERE, "a1"])
def test_of_a_guest_that_is_here_its_disks_tell(run: Run, guest: str) -> None:
    host = Member()
    assert run(host, "detach", guest, VOLUME).exit_code == 0
    assert run(host, *WAIT, "--guest", guest).exit_code == 0
    host.marks.follow(Mark(Role.HERE, 1), HERE)
    assert run(host, "detach", guest, VOLUME).exit_code == 0


@pytest.mark.parametrize("role", [Role.LEAVING, Role.ARRIVING, Role.GONE])
def test_of_a_copy_that_is_not_at_home_here_they_do_not(run: Run, role: Role) -> None:
    host = Member()
    host.marks.follow(Mark(role, 1), HERE)
    assert run(host, "detach", "a1", VOLUME).exit_code == 3
    assert run(host, *WAIT, "--guest", "a1").exit_code == 3


def test_what_the_fleet_wants_and_is_not_recorded_yet_is_not_gone(run: Run) -> None:
    host = Member()
    host.marks.follow(Mark(), HERE, VOLUME)
    assert run(host, "detach", "a1", VOLUME).exit_code == 3
    assert run(host, *WAIT, "--guest", "a1").exit_code == 3


def test_by_the_library_as_well() -> None:
    moorline = Member().owner()
    with pytest.raises(Refused) as refused:
        moorline.attachments.detach(GONE, VOLUME)
    assert not isinstance(refused.value, NotFound)
    with pytest.raises(Refused):
        moorline.guests.remove(GONE)


@pytest.mark.parametrize("by", [(), ("--guest", "a1")])
def test_who_waited_for_its_own_volume_is_told_that_it_is_gone(
    run: Run, monkeypatch: pytest.MonkeyPatch, by: tuple[str, ...]
) -> None:
    host = Member()
    host.owner().attachments.attach("a1", connection(volume=VOLUME), vouch="nobody has it")
    host.owner().attachments.detach("a1", VOLUME, wait=False)

    def goes(*_: object) -> None:
        host.world.tick()
        host.owner().attachments.sweep()

    monkeypatch.setattr("moorline.deadline.Deadline.sleep", goes)
    told = run(host, "wait", VOLUME, "--for", "detached", "--timeout", "9", *by)
    assert told.exit_code == 0, told.output


def test_who_waits_while_the_guest_goes_elsewhere_is_not(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for by in ((), ("--guest", "a1")):
        host = Member()
        host.owner().attachments.attach("a1", connection(volume=VOLUME), vouch="nobody has it")

        def goes(*_: object, host: Member = host) -> None:
            host.world.guests.clear()
            for row in host.records.all():
                host.records.forget(row)

        monkeypatch.setattr("moorline.deadline.Deadline.sleep", goes)
        told = run(host, "wait", VOLUME, "--for", "detached", "--timeout", "9", *by)
        assert told.exit_code == 3, told.output
