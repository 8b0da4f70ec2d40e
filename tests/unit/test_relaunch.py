"""A launch that is repeated: with the guest's own volumes, and with others."""

from __future__ import annotations

import pytest

from moorline.api import Moorline
from moorline.errors import NotOurs, Refused
from moorline.model import DiskOptions
from moorline.ports.guest_results import GuestOutcome
from moorline.testing.toys import ToyHypervisor
from tests.support.environment import bare
from tests.support.rig import Rig, connection
from tests.support.toy_machines import ToyLifecycle


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
    return Stage()


@pytest.mark.parametrize("boot", [0, 1])
@pytest.mark.parametrize("start", [True, False])
@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize(
    ("names", "why"),
    [
        ("c", "boots from volume a already"),
        ("ca", "boots from"),
        ("ba", "boots from|boot order"),
        ("ac", "launched without volume c"),
    ],
)
def test_launched_again_with_other_volumes_it_is_refused_before_anything_changes(
    stage: Stage, boot: int, start: bool, dry_run: bool, names: str, why: str
) -> None:
    stage.machines.boot = boot
    launch = stage.owner().guests.launch
    launch("web01", connection("a"), connections=[connection("b")], start=start)
    before, effects = stage.records.all(), stage.world.faults.count
    first, *more = (connection(name) for name in names)
    with pytest.raises(Refused, match=why):
        launch("web01", first, connections=more, start=start, dry_run=dry_run)
    assert (stage.records.all(), stage.world.faults.count) == (before, effects)


@pytest.mark.parametrize("boot", [0, 1])
def test_what_was_attached_after_a_launch_is_not_in_its_way(stage: Stage, boot: int) -> None:
    stage.machines.boot = boot
    launch = stage.owner().guests.launch
    launch("web01", connection("a"), connections=[connection("b")])
    stage.owner().attachments.attach("web01", connection("c"))
    assert launch("web01", connection("a"), connections=[connection("b")]).steps == []
    assert launch("web01", connection("a")).steps == []


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_guest_that_another_state_launched_is_removed_by_any_alone(
    stage: Stage, dry_run: bool
) -> None:
    stage.owner().guests.launch("web01", connection("a"))
    elsewhere = Stage()
    elsewhere.world, elsewhere.machines = stage.world, stage.machines
    effects = stage.world.faults.count
    with pytest.raises(NotOurs, match="no record of: a"):
        elsewhere.owner().guests.remove("web01", force=True, dry_run=dry_run)
    assert stage.world.faults.count == effects
    foreseen = elsewhere.owner().guests.remove("web01", force=True, any=True, dry_run=True)
    assert foreseen is not None
    assert stage.owner().guests.remove("web01", force=True, timeout=1.0) is not None
    assert not stage.world.guests


def test_a_boot_volume_has_the_place_that_it_is_given(stage: Stage) -> None:
    def launch(boot: int = 3) -> GuestOutcome:
        return stage.owner().guests.launch(
            "web01", connection("a"), connections=[connection("b")], options=DiskOptions(boot=boot)
        )

    launch()
    assert [row.options.boot for row in stage.records.all()] == [3, 0]
    assert launch().steps == []
    stage.owner().attachments.attach("web01", connection("c"), options=DiskOptions(boot=4))
    assert launch().steps == []
