"""The whole library above vSphere: attachments, records, reconciler, back end, hypervisor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from lab.vcenter import VCenter
from lab.vcenter.rig import MIB, Makes, Operator, logon, vsphere
from moorline.api import Moorline
from moorline.backends.datastore import Datastore
from moorline.core.locks import Locks
from moorline.core.reconciler import Reconciler
from moorline.core.records import Records
from moorline.errors import MoorlineError, NotOurs, Refused
from moorline.hypervisors.vsphere.client.session import Session
from moorline.hypervisors.vsphere.hypervisor import VSphere
from moorline.hypervisors.vsphere.provision.machine_request import MachineRequest
from moorline.model import DatastoreDisk
from moorline.secret import Secret
from moorline.stores.codec import Codec
from moorline.testing.faults import Fault, Faults, Killed
from moorline.testing.toys import MemoryStore
from tests.support.environment import bare

WEB, DB = VCenter.guests


class Owner:
    """A host whose owner can be killed at any write to its store, and begins anew."""

    def __init__(self, lab: VCenter) -> None:
        self.faults = Faults()
        self._lab = lab
        self._store = MemoryStore(self.faults)
        self._records = Records(self._store, Codec(Secret(b"k" * 32)), "h1")

    def __call__(self) -> Moorline:
        driver = vsphere(self._lab)
        reconciler = Reconciler(self._records, {"vmdk": Datastore()}, driver, Locks())
        return Moorline(self._records, reconciler, driver, close=driver.close, environment=bare())


@pytest.fixture
def owner(lab: VCenter) -> Iterator[Owner]:
    owner = Owner(lab)
    yield owner
    lab.heal()
    owner.faults.plan()
    with owner() as moorline:
        for view in moorline.attachments.list():
            moorline.attachments.detach(view.guest, view.volume)


def url(source: DatastoreDisk) -> str:
    return f"vmdk://{source.datastore}/{source.file}"


def test_attach_list_show_detach(owner: Owner, operator: Operator) -> None:
    source = operator.disk()
    with owner() as moorline:
        done = moorline.attachments.attach(WEB, url(source), volume="data-1")
        assert done.steps == ["attach"]
        assert done.view.device.startswith("scsi0:")
        assert moorline.attachments.attach(WEB, url(source), volume="data-1").steps == []
        [seen] = moorline.attachments.list()
        assert (seen.seen, seen.backend) == ("attached", "vmdk")
        assert moorline.attachments.show("data-1")[0].next == "nothing"
        gone = moorline.attachments.detach(WEB, url(source))
        assert gone is not None
        assert gone.steps == ["detach", "forget"]
        assert moorline.attachments.list() == []


def test_what_is_refused_leaves_no_attachment(owner: Owner, operator: Operator) -> None:
    with owner() as moorline:
        for bad in ("vmdk://vvol1/absent/disk.vmdk", "vmdk://absent/a/disk.vmdk"):
            with pytest.raises(Refused):
                moorline.attachments.attach(WEB, bad)
        with pytest.raises(Refused):
            moorline.attachments.attach(WEB, url(operator.disk()), dry_run=True, volume="x" * 65)
        assert moorline.attachments.list() == []


def test_a_volume_of_cinders(owner: Owner, lab: VCenter) -> None:
    session = Session(logon(lab))
    maker = Makes(session)
    held = maker.hold(MachineRequest("volume-9", empty=8 * MIB, datastores="vvol1"))
    data = {"volume": held.machine, "volume_id": "9", "name": "volume-9", "profile_id": None}
    with owner() as moorline:
        connection = {"driver_volume_type": "vmdk", "data": data}
        assert moorline.attachments.attach(WEB, connection).steps == ["attach"]
        assert moorline.attachments.attach(WEB, connection).steps == []
        moorline.attachments.detach(WEB, "9")
    maker.remove("volume-9")
    session.close()


def told(moorline: Moorline, volume: str) -> list[str]:
    (shown,) = moorline.attachments.show(volume)
    return shown.used_by


def test_whoever_has_the_disk_is_told(owner: Owner, lab: VCenter, operator: Operator) -> None:
    source = operator.disk()
    with owner() as moorline:
        moorline.attachments.attach(WEB, url(source), volume="data-1")
        assert told(moorline, "data-1") == [WEB]
        operator.power(WEB, on=False)
        operator.plug(DB, source)  # a stopped one's disk is not locked
        assert told(moorline, "data-1") == [WEB, DB]
        operator.unplug(DB, source.path)
        operator.power(WEB, on=True)
        operator.unplug(WEB, source.path)
        assert told(moorline, "data-1") == []


def test_whoever_has_a_disk_that_cinder_keeps_is_told(owner: Owner, lab: VCenter) -> None:
    session = Session(logon(lab))
    maker = Makes(session)
    held = maker.hold(MachineRequest("volume-9", empty=8 * MIB, datastores="vvol1"))
    data = {"volume": held.machine, "volume_id": "9", "name": "volume-9", "profile_id": None}
    with owner() as moorline:
        moorline.attachments.attach(WEB, {"driver_volume_type": "vmdk", "data": data})
        assert told(moorline, "9") == [WEB]
        moorline.attachments.detach(WEB, "9")
    maker.remove("volume-9")
    session.close()


def test_a_disk_of_another_mark_is_told(owner: Owner, operator: Operator) -> None:
    source = operator.disk()
    operator.plug(WEB, source)
    with owner() as moorline:
        with pytest.raises(NotOurs):
            moorline.attachments.attach(WEB, url(source), timeout=2)
        moorline.attachments.detach(WEB, url(source))
    operator.unplug(WEB, source.path)


@pytest.mark.parametrize(
    "way", [None, {"Drop": True}, {"DropAfter": True}, {"TaskFault": "SystemError"}]
)
def test_killed_at_every_write(
    vm: VSphere,
    owner: Owner,
    lab: VCenter,
    operator: Operator,
    way: dict[str, Any] | None,
    record_property: Any,
) -> None:
    source, points = operator.disk(), 0
    for fault in (Fault.KILL_BEFORE, Fault.KILL_AFTER, Fault.LOST, Fault.UNDONE):
        for at in range(4):
            lab.heal()
            if way:
                lab.fault("ReconfigVM_Task", **way)
            owner.faults.plan((at, fault))
            for _ in range(2):
                with suppress(Killed, MoorlineError), owner() as moorline:
                    moorline.attachments.attach(WEB, url(source), volume="data-1", timeout=3)
                    moorline.attachments.detach(WEB, "data-1", timeout=3)
            points += owner.faults.struck
            owner.faults.plan()
            lab.heal()
            with owner() as moorline:
                moorline.attachments.attach(WEB, url(source), volume="data-1")
                assert [view.seen for view in moorline.attachments.list()] == ["attached"]
                moorline.attachments.detach(WEB, "data-1")
                assert moorline.attachments.list() == []
            assert source.path not in {p for guest in vm.survey() for p in guest.paths}
    record_property("crash_points", points)
