"""A machine whose configuration vCenter cannot read is one unknown, with its name."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.vcenter import VCenter
from lab.vcenter.rig import MIB, Makes, Operator
from moorline.errors import Unavailable, Uncertain
from moorline.hypervisors.vsphere.hypervisor import VSphere, split
from moorline.hypervisors.vsphere.provision.machine_request import MachineRequest
from moorline.model import DiskOptions, GuestId, VolumeId

WEB, DB = VCenter.guests
V1 = VolumeId("vol-1")
PLAIN = DiskOptions()


@pytest.fixture(params=["inaccessible", "new"])
def config(request: pytest.FixtureRequest, lab: VCenter, operator: Operator) -> Iterator[str]:
    """How it comes that the configuration of DB cannot be read."""
    yield request.param
    lab.machine(DB, "readable")


def test_the_others_are_seen_and_it_is_told_with_its_name(
    lab: VCenter, vm: VSphere, web: GuestId, db: GuestId, config: str
) -> None:
    lab.machine(DB, config)
    guests = {guest.name: guest for guest in vm.survey()}
    assert not guests[WEB].unreadable
    assert guests[WEB].paths
    assert config != "inaccessible" or guests[DB].id == db
    assert "vCenter has no configuration of it" in guests[DB].unreadable
    assert guests[DB].remedy
    lab.machine(DB, "readable")
    assert not any(guest.unreadable for guest in vm.survey())


def test_others_are_attached_to_and_detached_from(
    lab: VCenter, operator: Operator, vm: VSphere, web: GuestId, config: str
) -> None:
    source = operator.disk()
    lab.machine(DB, config)
    vm.attach(web, V1, source, PLAIN)
    assert V1 in vm.disks(web)
    assert vm.find(WEB).id == web
    vm.detach(web, V1)
    assert vm.disks(web) == {}


def test_it_is_not_taken_for_a_guest_that_is_gone(
    lab: VCenter, operator: Operator, vm: VSphere, db: GuestId
) -> None:
    vm.attach(db, V1, operator.disk(), PLAIN)
    lab.machine(DB, "inaccessible")
    assert vm.find(DB).id == db
    for question in (lambda: vm.disks(db), lambda: vm.sizes(db, V1), lambda: vm.detach(db, V1)):
        with pytest.raises(Unavailable, match=f"guest {DB} cannot be read"):
            question()
    lab.machine(DB, "readable")
    assert V1 in vm.disks(db)


def test_a_disk_goes_unless_the_machine_may_have_it(
    lab: VCenter, operator: Operator, makes: Makes
) -> None:
    """It may have what lies on a datastore that it has something on."""
    makes.hold(MachineRequest("box", empty=8 * MIB, memory=64, datastores="vvol1"))
    (path,) = makes.look("box").disks
    operator.plug(DB, split(path))
    lab.machine(DB, "inaccessible")
    with pytest.raises(Uncertain, match=f"{DB} cannot be read, and may have the disk"):
        makes.remove("box")
    assert path in lab.disks()
    lab.machine(DB, "readable")
    operator.unplug(DB, path)
    assert makes.remove("box")


def test_a_disk_on_another_datastore_is_not_the_machines(lab: VCenter, makes: Makes) -> None:
    makes.hold(MachineRequest("box", empty=8 * MIB, memory=64, datastores="nfs41"))
    lab.machine(DB, "inaccessible")
    try:
        assert makes.remove("box")
    finally:
        lab.machine(DB, "readable")
