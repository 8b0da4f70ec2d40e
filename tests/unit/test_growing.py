"""Growing: who makes a volume's file larger, and when nobody does, on a toy host."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from moorline.api import Moorline
from moorline.errors import Failed, Refused
from moorline.model import (
    BlockDevice,
    DatastoreDisk,
    DiskOptions,
    DiskSource,
    Growable,
    GuestId,
    ImageFile,
    Linked,
    Seen,
    VolumeId,
)
from moorline.operations.grow import Grower, is_to_grow
from moorline.ports.volume_service import Reservation
from moorline.testing.faults import Fault, Killed
from moorline.testing.toys import SIZE, ToyHypervisor
from tests.support.environment import bare
from tests.support.rig import Rig
from tests.unit.test_extending import CONNECTION, FILE, A

G1 = GuestId("g1")
LARGE = 3 * SIZE


@pytest.mark.parametrize(
    ("size", "guest", "storage", "comes"),
    [
        (2048, 1024, 1024, True),
        (2048, 1024, 2048, False),
        (2048, 2048, 2048, False),
        (2048, 4096, 4096, "cannot shrink"),
        (2048, 1024, 4096, r"has 4KiB \(4096 bytes\): no guest sees just 2KiB \(2048 bytes\)"),
        (2000, 1024, 1024, "whole sectors"),
        (0, 1024, 1024, "cannot shrink"),
    ],
)
def test_what_is_to_grow(size: int, guest: int, storage: int, comes: bool | str) -> None:
    has = Growable(guest, storage, running=True)
    if isinstance(comes, bool):
        assert is_to_grow(A, size, has) is comes
        return
    with pytest.raises(Refused, match=comes):
        is_to_grow(A, size, has)


class Stage(Rig):
    """A host on which files can be made larger."""

    def __init__(self, *guests: str) -> None:
        super().__init__(*guests)
        self.by_tool: list[int] = []

    def moorline(self) -> Moorline:
        environment = replace(bare(), grow_file=self.grow_file)
        hypervisor = ToyHypervisor(self.world)
        return Moorline(self.records, self.reconciler(), hypervisor, environment=environment)

    def grow_file(self, source: ImageFile, size: int) -> None:
        def grown() -> None:
            self.world.sizes[str(source.path)] = size
            self.world.guests[G1].told[A] = size  # of a stopped guest it is what it will see
            self.by_tool.append(size)

        self.world.faults.effect(grown)


@pytest.fixture
def stage() -> Stage:
    stage = Stage("g1")
    stage.moorline().attachments.attach("g1", CONNECTION)
    return stage


@pytest.mark.parametrize("running", [True, False])
def test_who_has_the_file_open_makes_it_larger(stage: Stage, running: bool) -> None:
    stage.world.guests[G1].running = running
    grow = stage.moorline().attachments.extend
    effects = stage.world.faults.count
    foreseen = grow("g1", "a", LARGE, grow=True, dry_run=True)
    assert (foreseen.steps, foreseen.before, foreseen.size) == (["grow"], SIZE, LARGE)
    assert (stage.world.faults.count, FILE in stage.world.sizes) == (effects, False)
    done = grow("g1", "a", LARGE, grow=True)
    assert (done.steps, done.before, done.size) == (["grow"], SIZE, LARGE)
    assert stage.world.sizes[FILE] == LARGE
    assert stage.by_tool == ([] if running else [LARGE])
    assert grow("g1", "a", LARGE, grow=True).steps == []
    with pytest.raises(Refused, match="cannot shrink"):
        grow("g1", "a", SIZE, grow=True)
    assert stage.world.sizes[FILE] == LARGE


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("fault", [Fault.KILL_BEFORE, Fault.KILL_AFTER])
def test_whoever_is_killed_leaves_what_is_gone_on_with(
    stage: Stage, running: bool, fault: Fault
) -> None:
    stage.world.guests[G1].running = running
    stage.world.faults.plan((0, fault))
    with pytest.raises(Killed):
        stage.moorline().attachments.extend("g1", "a", LARGE, grow=True)
    done = stage.moorline().attachments.extend("g1", "a", LARGE, grow=True)
    assert (done.size, stage.world.sizes[FILE]) == (LARGE, LARGE)
    assert done.steps == (["grow"] if fault is Fault.KILL_BEFORE else [])


def test_a_file_that_is_as_large_already_is_shown(stage: Stage) -> None:
    stage.world.sizes[FILE] = LARGE
    assert stage.moorline().attachments.extend("g1", "a", LARGE, grow=True).steps == ["extend"]
    stage.world.sizes[FILE] = 2 * LARGE
    with pytest.raises(Refused, match="no guest sees just"):
        stage.moorline().attachments.extend("g1", "a", LARGE + SIZE, grow=True)


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (BlockDevice(Path("/dev/sda")), "is a block device"),
        (DatastoreDisk("nfs1", "a.vmdk"), "larger itself"),
        (ImageFile(Path("/a"), "ploop"), "the storage's own tool"),
    ],
)
def test_what_another_tool_makes_larger_is_refused(
    stage: Stage, source: DiskSource, why: str
) -> None:
    grower = Grower(stage.records, stage.reconciler(), ToyHypervisor(stage.world), None)
    (row,) = stage.records.all()
    with pytest.raises(Refused, match=why):
        grower.demand(row, Seen(Linked(source)))


def test_what_cinder_has_on_record_is_made_larger_there(stage: Stage) -> None:
    (row,) = stage.records.all()
    stage.records.note_reservation(row.key, Reservation("g1", "project"))
    with pytest.raises(Refused, match="is Cinder's"):
        stage.moorline().attachments.extend("g1", "a", LARGE, grow=True)


def test_a_snapshot_keeps_a_file_as_it_is(stage: Stage) -> None:
    grower = Grower(stage.records, stage.reconciler(), ToyHypervisor(stage.world), None)
    (row,) = stage.records.all()
    link = Linked(ImageFile(Path(FILE), "raw"))
    for snapshot in (True, None):
        with pytest.raises(Refused, match="a snapshot of it"):
            grower.demand(row, Seen(link, snapshot=snapshot))


@pytest.mark.parametrize("options", [DiskOptions(readonly=True), DiskOptions(shared=True)])
def test_who_reads_it_only_or_shares_it_has_it_left_alone(options: DiskOptions) -> None:
    stage = Stage("g1")
    stage.moorline().attachments.attach("g1", CONNECTION, options=options)
    with pytest.raises(Refused, match=r"only reads it|shares it"):
        stage.moorline().attachments.extend("g1", "a", LARGE, grow=True)


def test_without_a_size_nothing_grows(stage: Stage) -> None:
    with pytest.raises(Refused, match="how large"):
        stage.moorline().attachments.extend("g1", "a", grow=True)


def test_a_file_that_cannot_be_reached_is_waited_for(stage: Stage) -> None:
    stage.world.mounts.clear()
    with pytest.raises(Failed, match="cannot be reached"):
        stage.moorline().attachments.extend("g1", VolumeId("a"), LARGE, grow=True, timeout=0)
