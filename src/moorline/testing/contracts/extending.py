"""What every hypervisor keeps that can let guests see a larger disk: beside the usual contract."""

from __future__ import annotations

import pytest

from moorline.errors import Failed, NotFound, Refused
from moorline.model import DiskState, GuestId, PathSource
from moorline.ports import ExtendingHypervisor
from moorline.testing.contracts.hypervisor import (
    PLAIN,
    VOLUME,
    HypervisorContract,
    HypervisorRig,
    gone,
    look,
)


class ExtendingRig(HypervisorRig):
    """A rig whose hypervisor can extend."""

    hypervisor: ExtendingHypervisor

    def grow(self, source: PathSource) -> int:
        """Make the storage of *source* larger; return the bytes that it has then.

        Where the hypervisor does that itself: return more bytes than it has.
        """
        raise NotImplementedError


class ExtendingContract(HypervisorContract):
    """The contract of :class:`moorline.ports.ExtendingHypervisor`."""

    def test_a_volume_that_grew_is_seen_to_have_grown(
        self, rig: ExtendingRig, guest: GuestId
    ) -> None:
        hypervisor, source = rig.hypervisor, rig.new_source()
        hypervisor.attach(guest, VOLUME, source, PLAIN)
        before = hypervisor.sizes(guest, VOLUME)
        assert before.storage in (before.guest, None)
        size = rig.grow(source)
        assert size > before.guest
        assert hypervisor.sizes(guest, VOLUME).storage in (size, None)
        for _ in range(2):
            assert hypervisor.extend(guest, VOLUME, size) == size
            assert hypervisor.sizes(guest, VOLUME).guest == size
        assert look(rig, guest).state is DiskState.WHOLE

    def test_a_volume_never_shrinks(self, rig: ExtendingRig) -> None:
        hypervisor, source, guest = rig.hypervisor, rig.new_source(), rig.running_guest()
        hypervisor.attach(guest, VOLUME, source, PLAIN)
        hypervisor.extend(guest, VOLUME, rig.grow(source))
        before = hypervisor.sizes(guest, VOLUME)
        with pytest.raises((Refused, Failed)):
            hypervisor.extend(guest, VOLUME, before.guest // 2)
        assert hypervisor.sizes(guest, VOLUME) == before

    def test_what_is_not_attached_is_not_extended(self, rig: ExtendingRig) -> None:
        guest = rig.running_guest()
        rig.foreign_disk(guest)
        for of in (guest, gone()):
            with pytest.raises(NotFound):
                rig.hypervisor.sizes(of, VOLUME)
            with pytest.raises(NotFound):
                rig.hypervisor.extend(of, VOLUME, 1 << 30)
