"""A vCenter stand-in for each file of tests, healed before each test, and the driver."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest

from lab.vcenter import VCenter
from lab.vcenter.rig import Makes, Operator, logon, vsphere
from moorline.errors import NotOurs
from moorline.hypervisors.vsphere.client.session import Session
from moorline.hypervisors.vsphere.hypervisor import VSphere
from moorline.model import GuestId
from tests.support.missing import vcenter_lab


@pytest.fixture(scope="module")
def vcenter() -> Iterator[VCenter]:
    with vcenter_lab() as lab:
        yield lab


@pytest.fixture
def lab(vcenter: VCenter) -> VCenter:
    vcenter.heal()
    return vcenter


@pytest.fixture(scope="module")
def operator(vcenter: VCenter) -> Iterator[Operator]:
    operator = Operator(vcenter)
    yield operator
    operator.close()


@pytest.fixture
def vm(lab: VCenter) -> Iterator[VSphere]:
    vm = vsphere(lab)
    yield vm
    lab.heal()
    for guest in vm.survey():
        for volume in guest.disks:
            vm.detach(guest.id, volume)
    vm.close()


@pytest.fixture
def web(operator: Operator) -> GuestId:
    return operator.id(VCenter.guests[0])


@pytest.fixture
def db(operator: Operator) -> GuestId:
    return operator.id(VCenter.guests[1])


@pytest.fixture
def makes(lab: VCenter) -> Iterator[Makes]:
    session = Session(logon(lab), deadline=20)
    makes = Makes(session, task_deadline=20)
    yield makes
    lab.heal()
    for name in ("box", "box2"):
        with suppress(NotOurs):
            makes.remove(name)
    session.close()
