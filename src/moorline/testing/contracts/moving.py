"""What every hypervisor keeps whose guests go from host to host: subclass, and give ``rig``."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest

from moorline.deadline import Deadline
from moorline.errors import Failed, NotFound, Refused, Uncertain
from moorline.model import DiskOptions, DiskState, GuestId, PathSource, VolumeId
from moorline.ports.moving import MovingHypervisor, Presence

VOLUME = VolumeId("7c1f9c1e-5b7d-4e21-9a68-0c1d2e3f4a5b")
PATIENCE_SECONDS = 60.0


class MovingRig:
    """Two hosts. Subclass it for a hypervisor; ``tear_down`` is the owner's."""

    here: MovingHypervisor
    there: MovingHypervisor
    there_name: str
    """What *here* calls the other host."""

    def new_guest(self) -> GuestId:
        """A guest that runs *here*, that is defined and has no disks."""
        raise NotImplementedError

    def new_source(self) -> PathSource:
        """A disk source that both hosts have, and no guest uses."""
        raise NotImplementedError

    def runs(self, hypervisor: MovingHypervisor, guest: GuestId) -> bool:
        """Whether it runs there at this moment, not asked of *hypervisor*."""
        raise NotImplementedError


class MovingContract:
    """The contract of :class:`moorline.ports.moving.MovingHypervisor`."""

    @pytest.fixture
    def rig(self) -> MovingRig:
        raise NotImplementedError

    # --- what is here ---

    def test_it_says_that_its_guests_can_move(self, rig: MovingRig) -> None:
        assert isinstance(rig.here, MovingHypervisor)

    def test_a_guest_is_running_then_stopped_then_gone(self, rig: MovingRig) -> None:
        guest = rig.new_guest()
        found = rig.here.present()[guest]
        assert found.name == rig.here.find(guest).name
        assert seen(rig.here, guest) is Presence.RUNNING
        assert seen(rig.there, guest) is Presence.ABSENT
        rig.here.stop(guest)
        assert seen(rig.here, guest) is Presence.STOPPED
        rig.here.undefine(guest)
        assert seen(rig.here, guest) is Presence.ABSENT

    # --- definition ---

    def test_a_guest_is_made_anew_from_its_definition(self, rig: MovingRig) -> None:
        guest = rig.new_guest()
        name = rig.here.find(guest).name
        kept = rig.here.definition(guest)
        rig.here.stop(guest)
        rig.here.undefine(guest)
        rig.there.define(guest, kept, ())
        assert seen(rig.there, guest) is Presence.STOPPED
        assert rig.there.find(guest).name == name
        rig.there.start(guest)
        assert seen(rig.there, guest) is Presence.RUNNING
        assert rig.runs(rig.there, guest)

    @pytest.mark.parametrize("still", [True, False], ids=["its", "another's by now"])
    def test_a_disk_that_was_taken_since_is_not_defined(self, rig: MovingRig, still: bool) -> None:
        guest = rig.new_guest()
        rig.here.attach(guest, VOLUME, rig.new_source(), DiskOptions())
        kept = rig.here.definition(guest)
        rig.here.stop(guest)
        rig.here.undefine(guest)
        rig.there.define(guest, kept, {VOLUME} if still else ())
        assert (VOLUME in rig.there.disks(guest)) is still

    def test_a_definition_is_the_same_as_long_as_the_guest_is(self, rig: MovingRig) -> None:
        guest = rig.new_guest()
        kept = rig.here.definition(guest)
        assert rig.here.definition(guest) == kept
        rig.here.stop(guest)
        assert rig.here.definition(guest) == kept

    def test_what_is_so_already_is_success(self, rig: MovingRig) -> None:
        guest = rig.new_guest()
        kept = rig.here.definition(guest)
        rig.here.start(guest)
        rig.here.resume(guest)
        rig.here.define(guest, kept, ())
        assert seen(rig.here, guest) is Presence.RUNNING
        for _ in range(2):
            rig.here.stop(guest)
        rig.here.resume(guest)
        rig.here.define(guest, kept, ())
        assert seen(rig.here, guest) is Presence.STOPPED
        for _ in range(2):
            rig.here.undefine(guest)
        rig.here.stop(guest)

    def test_what_runs_is_not_forgotten(self, rig: MovingRig) -> None:
        guest = rig.new_guest()
        with pytest.raises(Failed):
            rig.here.undefine(guest)
        assert seen(rig.here, guest) is Presence.RUNNING

    def test_what_is_not_there_is_not_found(self, rig: MovingRig) -> None:
        nobody = GuestId(str(uuid.uuid4()))
        for call in (rig.here.start, rig.here.resume, rig.here.definition):
            with pytest.raises(NotFound):
                call(nobody)

    # --- sending ---

    def test_a_guest_that_is_sent_waits_until_it_is_let_run(self, rig: MovingRig) -> None:
        guest = rig.new_guest()
        kept = rig.here.definition(guest)
        send(rig, guest)
        assert seen(rig.here, guest) is Presence.ABSENT
        assert seen(rig.there, guest) is Presence.ARRIVED
        assert not rig.runs(rig.there, guest)
        rig.here.send(guest, rig.there_name)  # it is gone: as it should be
        for _ in range(2):
            rig.there.resume(guest)
        assert seen(rig.there, guest) is Presence.RUNNING
        assert rig.runs(rig.there, guest)
        rig.there.stop(guest)
        assert rig.there.definition(guest) == kept

    def test_its_disks_go_along(self, rig: MovingRig) -> None:
        guest, source = rig.new_guest(), rig.new_source()
        rig.here.attach(guest, VOLUME, source, DiskOptions())
        send(rig, guest)
        disk = rig.there.disks(guest)[VOLUME]
        assert disk.state is DiskState.WHOLE
        assert disk.source == str(source.path)

    def test_a_copy_that_arrived_can_be_stopped(self, rig: MovingRig) -> None:
        guest = rig.new_guest()
        send(rig, guest)
        rig.there.stop(guest)
        assert seen(rig.there, guest) in (Presence.STOPPED, Presence.ABSENT)

    def test_a_guest_stays_where_the_other_host_has_a_copy(self, rig: MovingRig) -> None:
        guest = rig.new_guest()
        rig.there.define(guest, rig.here.definition(guest), ())
        stays(rig, guest, lambda: rig.here.send(guest, rig.there_name), Failed)
        assert seen(rig.there, guest) is Presence.STOPPED

    def test_a_guest_stays_where_the_other_host_does_not_answer(self, rig: MovingRig) -> None:
        guest = rig.new_guest()
        stays(rig, guest, lambda: rig.here.send(guest, "no-such-host"), Failed)

    def test_a_stopped_guest_is_not_sent(self, rig: MovingRig) -> None:
        guest = rig.new_guest()
        rig.here.stop(guest)
        with pytest.raises(Refused):
            rig.here.send(guest, rig.there_name)
        assert seen(rig.here, guest) is Presence.STOPPED


def seen(hypervisor: MovingHypervisor, guest: GuestId) -> Presence:
    """How the guest is there."""
    found = hypervisor.present().get(guest)
    return found.presence if found else Presence.ABSENT


def send(rig: MovingRig, guest: GuestId) -> None:
    """Send it, and ask again while it is on its way."""
    deadline = Deadline(PATIENCE_SECONDS)
    while not deadline.over():
        try:
            rig.here.send(guest, rig.there_name)
        except Uncertain:
            continue
        else:
            return
    pytest.fail(f"{guest} is on its way still")


def stays(rig: MovingRig, guest: GuestId, do: Callable[[], None], error: type[Exception]) -> None:
    """Check that *do* raises *error*, and that the guest runs on where it is."""
    with pytest.raises(error):
        do()
    assert seen(rig.here, guest) is Presence.RUNNING
    assert rig.runs(rig.here, guest)
