"""What every hypervisor keeps: subclass, and give the fixture ``rig``."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar, Literal

import pytest

from moorline.deadline import Deadline
from moorline.errors import Failed, NotFound, Refused, Uncertain
from moorline.model import NO_DISK, Disk, DiskOptions, DiskState, GuestId, PathSource, VolumeId
from moorline.ports import Hypervisor

VOLUME = VolumeId("3f2a9c1e-5b7d-4e21-9a68-0c1d2e3f4a5b")
OTHER = VolumeId("V_2")
PLAIN = DiskOptions()
Half = Literal["live", "defined"]


class HypervisorRig:
    """A hypervisor, guests and sources for it, and hands on the world that it works in.

    Subclass it for a hypervisor. What it does not have stays as it is here, and
    the tests that need it are skipped. ``tear_down`` is the owner's.
    """

    hypervisor: Hypervisor
    patience: float = 10.0
    """Seconds within which a guest that listens lets a disk go."""

    def running_guest(self) -> GuestId:
        """A guest that runs, without disks that bear our mark: the same at each call."""
        raise NotImplementedError

    def stopped_guest(self) -> GuestId | None:
        """A guest that is stopped, likewise."""
        return None

    def transient_guest(self) -> GuestId | None:
        """A guest that runs and has no definition, likewise."""
        return None

    def new_source(self) -> PathSource:
        """A disk source of an accepted class that no guest uses."""
        raise NotImplementedError

    def settle(self) -> None:
        """Let what is asynchronous go on a little."""
        time.sleep(0.05)

    def foreign_disk(self, guest: GuestId) -> str:
        """Give *guest* a disk without our mark; return its path."""
        raise NotImplementedError

    def halve(self, guest: GuestId, volume: VolumeId, keep: Half) -> None:
        """Take the disk out of one half of *guest*, behind the hypervisor's back."""
        pytest.skip("this hypervisor's guests have no halves")

    def world(self) -> object:
        """All that the hypervisor could have changed, as a value to compare."""
        return [
            (guest.id, guest.running, dict(guest.disks), guest.paths)
            for guest in sorted(self.hypervisor.survey(), key=lambda guest: guest.id)
        ]


class NoSuchClass:
    """A disk source that no hypervisor accepts."""


NO_SUCH_CLASS: Any = NoSuchClass()


class HypervisorContract:
    """The contract of :class:`moorline.ports.Hypervisor`."""

    KINDS: ClassVar = ("running", "stopped", "transient")

    @pytest.fixture
    def rig(self) -> HypervisorRig:
        raise NotImplementedError

    @pytest.fixture(params=KINDS)
    def guest(self, rig: HypervisorRig, request: pytest.FixtureRequest) -> GuestId:
        """A guest of each kind that the hypervisor has."""
        guest: GuestId | None = getattr(rig, f"{request.param}_guest")()
        if guest is None:
            pytest.skip(f"this hypervisor has no {request.param} guests")
        return guest

    # --- names ---

    def test_a_guest_is_found_by_name_and_by_id(self, rig: HypervisorRig, guest: GuestId) -> None:
        found = rig.hypervisor.find(guest)
        assert found.id == guest
        assert rig.hypervisor.find(found.name) == found

    def test_a_guest_that_is_not_there_is_not_found(self, rig: HypervisorRig) -> None:
        for name in ("no-such-guest", gone(), "", "a\0b", "\udcff", "x" * 300, "-h", "../x"):
            with pytest.raises(NotFound):
                rig.hypervisor.find(name)

    # --- attach ---

    def test_what_is_attached_is_whole(self, rig: HypervisorRig, guest: GuestId) -> None:
        source = rig.new_source()
        rig.hypervisor.attach(guest, VOLUME, source, PLAIN)
        disk = look(rig, guest)
        assert disk.state is DiskState.WHOLE
        assert disk.source == str(source.path)
        assert disk.device

    def test_attaching_twice_is_success_and_changes_nothing(
        self, rig: HypervisorRig, guest: GuestId
    ) -> None:
        source = rig.new_source()
        rig.hypervisor.attach(guest, VOLUME, source, PLAIN)
        before = rig.world()
        rig.hypervisor.attach(guest, VOLUME, source, PLAIN)
        assert rig.world() == before

    def test_an_attach_looks_at_what_is_so_now(self, rig: HypervisorRig, guest: GuestId) -> None:
        source = rig.new_source()
        rig.hypervisor.attach(guest, VOLUME, source, PLAIN)
        assert look(rig, guest).state is DiskState.WHOLE
        in_thread(lambda: take_away(rig, guest, VOLUME))
        rig.hypervisor.attach(guest, VOLUME, source, PLAIN)
        assert look(rig, guest).state is DiskState.WHOLE

    def test_volumes_are_told_apart(self, rig: HypervisorRig, guest: GuestId) -> None:
        sources = {VOLUME: rig.new_source(), OTHER: rig.new_source()}
        for volume, source in sources.items():
            rig.hypervisor.attach(guest, volume, source, PLAIN)
        disks = rig.hypervisor.disks(guest)
        assert {v: disk.source for v, disk in disks.items()} == paths_of(sources)
        assert len({disk.device for disk in disks.values()}) == 2
        take_away(rig, guest, VOLUME)
        assert rig.hypervisor.disks(guest) == {OTHER: disks[OTHER]}

    def test_the_mark_comes_with_the_disk(self, rig: HypervisorRig) -> None:
        """Whoever looks while an attach goes on never sees the path without the mark."""
        guest, source = rig.running_guest(), rig.new_source()
        with watching(rig) as unmarked:
            rig.hypervisor.attach(guest, VOLUME, source, PLAIN)
        assert unmarked(str(source.path)) == 0

    def test_a_read_only_disk_is_a_disk_or_is_refused(
        self, rig: HypervisorRig, guest: GuestId
    ) -> None:
        source, before = rig.new_source(), rig.world()
        try:
            rig.hypervisor.attach(guest, VOLUME, source, DiskOptions(readonly=True))
        except Refused:
            assert rig.world() == before
        else:
            assert look(rig, guest).state is DiskState.WHOLE

    def test_two_threads_attach_two_volumes_to_one_guest(self, rig: HypervisorRig) -> None:
        guest = rig.running_guest()
        sources = {VOLUME: rig.new_source(), OTHER: rig.new_source()}
        in_threads(
            *(persistently(rig, guest, volume, source) for volume, source in sources.items())
        )
        disks = rig.hypervisor.disks(guest)
        assert {v: disk.source for v, disk in disks.items()} == paths_of(sources)
        assert {disk.state for disk in disks.values()} == {DiskState.WHOLE}

    def test_two_threads_attach_one_volume_once(self, rig: HypervisorRig) -> None:
        guest, source = rig.running_guest(), rig.new_source()
        in_threads(*[persistently(rig, guest, VOLUME, source)] * 2)
        assert list(rig.hypervisor.disks(guest)) == [VOLUME]
        assert look(rig, guest).state is DiskState.WHOLE

    # --- detach ---

    def test_what_is_detached_goes(self, rig: HypervisorRig, guest: GuestId) -> None:
        before = rig.world()
        rig.hypervisor.attach(guest, VOLUME, rig.new_source(), PLAIN)
        take_away(rig, guest, VOLUME)
        assert rig.world() == before

    def test_detaching_twice_is_success(self, rig: HypervisorRig, guest: GuestId) -> None:
        rig.hypervisor.attach(guest, VOLUME, rig.new_source(), PLAIN)
        rig.hypervisor.detach(guest, VOLUME)
        rig.hypervisor.detach(guest, VOLUME)
        take_away(rig, guest, VOLUME)

    def test_detaching_what_never_was_is_success(self, rig: HypervisorRig, guest: GuestId) -> None:
        rig.hypervisor.attach(guest, OTHER, rig.new_source(), PLAIN)
        before = rig.world()
        rig.hypervisor.detach(guest, VOLUME)
        assert rig.world() == before

    def test_a_disk_can_come_back(self, rig: HypervisorRig, guest: GuestId) -> None:
        source = rig.new_source()
        for _ in range(2):
            rig.hypervisor.attach(guest, VOLUME, source, PLAIN)
            assert look(rig, guest).state is DiskState.WHOLE
            take_away(rig, guest, VOLUME)

    def test_disks_without_our_mark_are_left_alone(
        self, rig: HypervisorRig, guest: GuestId
    ) -> None:
        foreign = rig.foreign_disk(guest)
        assert rig.hypervisor.disks(guest) == {}
        rig.hypervisor.attach(guest, VOLUME, rig.new_source(), PLAIN)
        assert list(rig.hypervisor.disks(guest)) == [VOLUME]
        take_away(rig, guest, VOLUME)
        assert foreign in survey(rig)[guest].paths

    # --- halves ---

    @pytest.mark.parametrize("keep", ["live", "defined"])
    def test_half_a_disk_is_partial_and_healed(self, rig: HypervisorRig, keep: Half) -> None:
        guest, source = rig.running_guest(), rig.new_source()
        rig.hypervisor.attach(guest, OTHER, rig.new_source(), PLAIN)
        rig.hypervisor.attach(guest, VOLUME, source, PLAIN)
        whole = look(rig, guest)
        take_away(rig, guest, OTHER)  # a lower name is free now: healing must not take it
        rig.halve(guest, VOLUME, keep)
        assert look(rig, guest) == replace(whole, state=DiskState.PARTIAL)
        rig.hypervisor.attach(guest, VOLUME, source, PLAIN)
        assert look(rig, guest) == whole

    @pytest.mark.parametrize("keep", ["live", "defined"])
    def test_half_a_disk_can_be_detached(self, rig: HypervisorRig, keep: Half) -> None:
        guest = rig.running_guest()
        rig.hypervisor.attach(guest, VOLUME, rig.new_source(), PLAIN)
        rig.halve(guest, VOLUME, keep)
        take_away(rig, guest, VOLUME)

    # --- survey ---

    def test_a_survey_sees_every_guest_and_disk(self, rig: HypervisorRig, guest: GuestId) -> None:
        source = rig.new_source()
        rig.hypervisor.attach(guest, VOLUME, source, PLAIN)
        seen = survey(rig)[guest]
        assert seen.name == rig.hypervisor.find(guest).name
        assert seen.running is (guest != rig.stopped_guest())
        assert seen.disks == rig.hypervisor.disks(guest)
        assert str(source.path) in seen.paths

    def test_a_survey_sees_the_paths_of_foreign_disks(
        self, rig: HypervisorRig, guest: GuestId
    ) -> None:
        foreign = rig.foreign_disk(guest)
        seen = survey(rig)[guest]
        assert foreign in seen.paths
        assert seen.disks == {}

    # --- refusals ---

    def test_a_source_of_another_class_is_refused(self, rig: HypervisorRig, guest: GuestId) -> None:
        assert NoSuchClass not in rig.hypervisor.accepts
        before = rig.world()
        with pytest.raises(Refused):
            rig.hypervisor.check(guest, NO_SUCH_CLASS, PLAIN)
        with pytest.raises(Refused):
            rig.hypervisor.attach(guest, VOLUME, NO_SUCH_CLASS, PLAIN)
        assert rig.world() == before

    @pytest.mark.parametrize(
        "impossible", [DiskOptions(bus="no such bus"), DiskOptions(on_error="ignore")]
    )
    def test_what_is_checked_and_refused_changes_nothing(
        self, rig: HypervisorRig, guest: GuestId, impossible: DiskOptions
    ) -> None:
        source, before = rig.new_source(), rig.world()
        with pytest.raises(Refused):
            rig.hypervisor.check(guest, source, impossible)
        with pytest.raises(Refused):
            rig.hypervisor.attach(guest, VOLUME, source, impossible)
        assert rig.world() == before

    def test_what_is_checked_and_fine_changes_nothing(
        self, rig: HypervisorRig, guest: GuestId
    ) -> None:
        source, before = rig.new_source(), rig.world()
        rig.hypervisor.check(guest, source, PLAIN)
        assert rig.world() == before

    # --- guests that are gone ---

    def test_a_guest_that_is_gone_has_no_disks(self, rig: HypervisorRig) -> None:
        assert rig.hypervisor.disks(gone()) == {}

    def test_detaching_from_a_guest_that_is_gone_is_success(self, rig: HypervisorRig) -> None:
        before = rig.world()
        rig.hypervisor.detach(gone(), VOLUME)
        assert rig.world() == before

    def test_attaching_to_a_guest_that_is_gone_is_refused(self, rig: HypervisorRig) -> None:
        source = rig.new_source()
        with pytest.raises(NotFound):
            rig.hypervisor.check(gone(), source, PLAIN)
        with pytest.raises(NotFound):
            rig.hypervisor.attach(gone(), VOLUME, source, PLAIN)


def look(rig: HypervisorRig, guest: GuestId, volume: VolumeId = VOLUME) -> Disk:
    """The disk as *guest* has it now."""
    return rig.hypervisor.disks(guest).get(volume, NO_DISK)


def survey(rig: HypervisorRig) -> Mapping[GuestId, Any]:
    """Every guest by its id."""
    return {guest.id: guest for guest in rig.hypervisor.survey()}


def gone() -> GuestId:
    """The id of a guest that is not there (any more)."""
    return GuestId(str(uuid.uuid4()))


def take_away(rig: HypervisorRig, guest: GuestId, volume: VolumeId) -> None:
    """Detach, ask again, until the disk is gone."""
    deadline = Deadline(rig.patience)
    rig.hypervisor.detach(guest, volume)
    while volume in rig.hypervisor.disks(guest):
        assert not deadline.over(), f"{volume} is still there"
        rig.settle()
        rig.hypervisor.detach(guest, volume)


def paths_of(sources: Mapping[VolumeId, PathSource]) -> Mapping[VolumeId, str]:
    """The path of each source."""
    return {volume: str(source.path) for volume, source in sources.items()}


def persistently(
    rig: HypervisorRig, guest: GuestId, volume: VolumeId, source: PathSource
) -> Callable[[], None]:
    """An attach that is asked for again, as the core does, if it lost a race."""

    def attach() -> None:
        deadline = Deadline(rig.patience)
        while look(rig, guest, volume).state is not DiskState.WHOLE:
            assert not deadline.over(), f"{volume} is not there"
            try:
                rig.hypervisor.attach(guest, volume, source, PLAIN)
            except (Failed, Uncertain):
                rig.settle()

    return attach


def in_thread(work: Callable[[], None]) -> None:
    """Run *work* in another thread; raise what it raises."""
    in_threads(work)


def in_threads(*works: Callable[[], None]) -> None:
    """Run each of *works* in a thread, all at once; raise what one raises."""
    errors: list[BaseException] = []
    start = threading.Barrier(len(works))

    def run(work: Callable[[], None]) -> None:
        start.wait()
        try:
            work()
        except BaseException as e:  # noqa: BLE001 - raised in the caller's thread
            errors.append(e)

    threads = [threading.Thread(target=run, args=[work]) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@contextmanager
def watching(rig: HypervisorRig) -> Iterator[Callable[[str], int]]:
    """Survey all the time; count how often a path was seen that no marked disk has."""
    seen: list[tuple[frozenset[str], frozenset[str]]] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            for guest in rig.hypervisor.survey():
                marked = frozenset(disk.source for disk in guest.disks.values())
                seen.append((guest.paths, marked))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield lambda path: sum(path in paths and path not in marked for paths, marked in seen)
    finally:
        stop.set()
        watcher.join()
