"""vSphere keeps the contract of hypervisors, in front of the vCenter stand-in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.vcenter import VCenter
from lab.vcenter.rig import Operator, vsphere
from moorline.model import DiskSource, GuestId, PathSource
from moorline.testing.contracts.extending import ExtendingContract, ExtendingRig
from tests.support.missing import vcenter_lab

RUNNING, STOPPED = VCenter.guests


class VSphereRig(ExtendingRig):
    def __init__(self, lab: VCenter, operator: Operator) -> None:
        self.hypervisor = vsphere(lab)
        self._operator = operator

    def running_guest(self) -> GuestId:
        return self._operator.id(RUNNING)

    def stopped_guest(self) -> GuestId:
        return self._operator.id(STOPPED)

    def new_source(self) -> DiskSource:
        return self._operator.disk()

    def grow(self, source: PathSource) -> int:
        return 10 << 20

    def foreign_disk(self, guest: GuestId) -> str:
        source = self._operator.disk("vmfs1")
        name = RUNNING if guest == self.running_guest() else STOPPED
        self._operator.plug(name, source)
        return source.path


@pytest.fixture(scope="module")
def lab() -> Iterator[VCenter]:
    with vcenter_lab() as lab:
        yield lab


@pytest.fixture(scope="module")
def operator(lab: VCenter) -> Iterator[Operator]:
    operator = Operator(lab)
    operator.power(STOPPED, on=False)
    yield operator
    operator.close()


class TestVSphere(ExtendingContract):
    @pytest.fixture
    def rig(self, lab: VCenter, operator: Operator) -> Iterator[ExtendingRig]:
        rig = VSphereRig(lab, operator)
        yield rig
        for guest in rig.hypervisor.survey():
            for volume in guest.disks:
                rig.hypervisor.detach(guest.id, volume)
            for path in guest.paths:
                if path.startswith("[vmfs1]"):
                    operator.unplug(guest.name, path)
        rig.hypervisor.close()
