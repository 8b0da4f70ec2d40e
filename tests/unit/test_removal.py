"""Whose a guest is that is to be removed: the state's that launched it, with volumes or without."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moorline.api import Moorline
from moorline.core.locks import Locks
from moorline.core.reconciler import Reconciler
from moorline.core.records import Records
from moorline.errors import NotOurs
from moorline.model import GuestId
from moorline.secret import Secret
from moorline.stores.codec import Codec
from moorline.testing.toys import MemoryStore, ToyHypervisor, ToyShare
from tests.support.environment import bare
from tests.support.rig import Rig, connection
from tests.support.toy_machines import ToyLifecycle

WEB01 = GuestId("id-web01")


class Stage(Rig):
    """A host on which guests can be made."""

    def __init__(self) -> None:
        super().__init__()
        self.machines = ToyLifecycle(self.world)

    def owner(self) -> Moorline:
        hypervisor = ToyHypervisor(self.world)
        return Moorline(
            self.records, self.reconciler(), hypervisor, self.machines, environment=bare()
        )


@pytest.fixture
def stage() -> Stage:
    stage = Stage()
    stage.owner().guests.launch("web01", connection("a"), start=False, timeout=5.0)
    assert stage.records.has_launched(WEB01)
    return stage


def test_a_guest_without_volumes_is_still_its_states(stage: Stage) -> None:
    stage.owner().attachments.detach("web01", "a", timeout=5.0)
    assert stage.records.all() == []
    other = Records(MemoryStore(stage.world.faults), Codec(Secret(b"k" * 32)), "h1")
    shares, hypervisor = {"toy": ToyShare(stage.world)}, ToyHypervisor(stage.world)
    theirs = Moorline(
        other,
        Reconciler(other, shares, hypervisor, Locks(patience=1.0)),
        hypervisor,
        stage.machines,
        environment=replace(bare(), launched_elsewhere=lambda guest: "/srv/state 1"),
    )
    with pytest.raises(NotOurs, match="was launched by the state in /srv/state 1") as refused:
        theirs.guests.remove("web01", timeout=0.3)
    assert "moorline remove --state-dir '/srv/state 1' web01" in refused.value.hint
    assert WEB01 in stage.world.guests
    outcome = stage.owner().guests.remove("web01", timeout=0.3)
    assert outcome is not None
    assert outcome.steps == ["undefine"]
    assert not stage.records.has_launched(WEB01)


def test_what_an_earlier_version_launched_is_removed_as_ever(stage: Stage) -> None:
    stage.records.drop_launched(WEB01)
    assert stage.owner().guests.remove("web01", timeout=0.3) is not None
    assert not stage.world.guests
