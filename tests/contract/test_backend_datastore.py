"""VMDKs against the back end contract: nothing is connected, the connection alone is judged."""

from __future__ import annotations

from typing import Any

import pytest

from moorline.backends.datastore import Datastore
from moorline.errors import Refused
from moorline.model import DatastoreDisk, Linked, ShadowDisk
from moorline.testing.contracts.backend import BackendContract, BackendRig, look

VOLUME = "8c2c2a1f-9a4f-4b0c-8a8e-3a8f6f9d0b11"


def typed(path: str, datastore: str = "vvol1", **more: Any) -> dict[str, Any]:
    return {"driver_volume_type": "vmdk", "data": {"datastore": datastore, "path": path, **more}}


def cinder(machine: Any = "vm-123", **more: Any) -> dict[str, Any]:
    """As ``_get_connection_info`` of Cinder's VMware driver makes it."""
    data = {"volume": machine, "volume_id": VOLUME, "name": f"volume-{VOLUME}", "profile_id": None}
    return {"driver_volume_type": "vmdk", "data": {**data, **more}}


class DatastoreRig(BackendRig):
    given = True

    def __init__(self) -> None:
        self.backend = Datastore()
        self.good = typed("folder/disk.vmdk")
        self.other = typed("folder/other.vmdk")
        self.respelled = ({**self.good, "serial": VOLUME},)
        self.hostile = (
            {
                repr(path): typed(path)
                for path in (
                    "",
                    "disk",
                    "/d.vmdk",
                    "../d.vmdk",
                    "a//d.vmdk",
                    "a/d.vmdk\n",
                    "-a/d.vmdk",
                )
            }
            | {
                f"datastore {name!r}": typed("a/d.vmdk", name)
                for name in ("", "a]", "[a", "a/b", "a\\b", "..", "a\nb", "x" * 200)
            }
            | {
                f"datacenter {name!r}": typed("a/d.vmdk", datacenter=name)
                for name in ("", None, 7, "a]", "a/b", "a\\b", "..", "a\nb", "x" * 200)
            }
        )

    def world(self) -> object:
        return None


class TestDatastore(BackendContract):
    @pytest.fixture
    def rig(self) -> BackendRig:
        return DatastoreRig()

    def test_a_missing_volume_is_refused(self, rig: BackendRig) -> None:
        pytest.skip("only vCenter knows: the hypervisor's check refuses it")


class CinderRig(DatastoreRig):
    def __init__(self) -> None:
        super().__init__()
        self.good, self.other = cinder(), cinder("vm-124")
        secret = "vcenter-password"
        self.secrets = (secret,)
        self.respelled = (
            {"driver_volume_type": "vmdk", **self.good["data"]},
            cinder(vmdk_path="[vvol1] a/b.vmdk", config={"vmware_host_password": secret}),
        )
        self.hostile = {
            repr(machine): cinder(machine)
            for machine in ("", "vm-", "vm-1/../2", "VM-1", "host-1", "vm-1\n", 7, None, ["vm-1"])
        }


class TestCinder(TestDatastore):
    @pytest.fixture
    def rig(self) -> BackendRig:
        return CinderRig()


def test_what_a_person_types() -> None:
    backend = Datastore()
    for format in (None, "raw"):
        typed = backend.from_url("vmdk://vvol1/folder/disk.vmdk", format)
        link = backend.inspect(backend.parse(typed))
        assert link == Linked(DatastoreDisk("vvol1", "folder/disk.vmdk"), given=True)
    for url in ("", "vmdk://vvol1", "vvol1", "vmdk://"):
        with pytest.raises(Refused):
            backend.from_url(url, None)
    with pytest.raises(Refused, match="qcow2"):
        backend.from_url("vmdk://vvol1/d.vmdk", "qcow2")


def test_the_datacenter_is_part_of_what_a_disk_is_known_by() -> None:
    backend = Datastore()
    plain, here, there = (
        backend.parse(backend.from_url(f"vmdk://ds/f/d.vmdk{within}", None))
        for within in ("", "?datacenter=DC 0", "?datacenter=DC1")
    )
    assert here.source == DatastoreDisk("ds", "f/d.vmdk", "DC 0")
    assert backend.parse(typed("f/d.vmdk", "ds", datacenter="DC 0")) == here
    assert backend.link_name(plain) == "/vmdk/datastore/ds/f/d.vmdk", "as it ever was"
    assert len({backend.link_name(each) for each in (plain, here, there)}) == 3
    for url in ("vmdk://ds/d.vmdk?datacenter=", "vmdk://ds/d.vmdk?datacenter=a/b"):
        with pytest.raises(Refused):
            backend.parse(backend.from_url(url, None))


def test_cinders_machine_is_passed_on() -> None:
    rig = CinderRig()
    assert look(rig, rig.good) == Linked(ShadowDisk("vm-123"), given=True)
    assert rig.backend.parse(rig.good).volume == VOLUME
