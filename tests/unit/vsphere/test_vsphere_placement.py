"""Where machines are made: what is found by a name, where others have the name as well."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from boxes import order
from pyVmomi import vim

from lab.vcenter import VCenter
from lab.vcenter.rig import MIB, Makes, Operator, logon
from moorline.errors import NotFound, Refused, Uncertain
from moorline.hypervisors.vsphere.client.session import Session
from moorline.hypervisors.vsphere.provision.machine_state import Stage
from tests.support.missing import vcenter_lab

GIB = 1 << 30
STORES: tuple[dict[str, Any], ...] = (
    {
        "Name": "thick",
        "Type": "VVOL",
        "Capacity": 9 * GIB,
        "Free": 8 * GIB,
        "Provisioning": "thick",
    },
    {"Name": "thin", "Type": "NFS", "Capacity": 9 * GIB, "Free": 7 * GIB, "Provisioning": "thin"},
)


@pytest.fixture(scope="module")
def vcenter() -> Iterator[VCenter]:
    """Two datacenters, each with a cluster, a host without one, pools and a vApp."""
    with vcenter_lab(datastores=STORES, datacenters=2, standalone=1, pools=1, vapps=1) as lab:
        yield lab


def make(makes: Makes, operator: Operator, **more: Any) -> vim.VirtualMachine:
    """The machine box, of which an empty disk is the least."""
    makes.remove("box")
    makes.hold(order(None, empty=MIB, **{"cluster": "DC0_C0", **more}))
    return operator.session.reference(vim.VirtualMachine, makes.look("box").ref._moId)


def test_a_host_without_a_cluster_is_none(lab: VCenter, makes: Makes) -> None:
    with pytest.raises(Refused) as told:
        makes.choose(order(None, empty=MIB))
    assert told.value.message == "there are 2 clusters"
    assert "DC0_H0" not in told.value.hint
    assert makes.choose(order(None, empty=MIB, cluster="DC0_H0")).best()


def test_the_only_cluster_is_meant_whatever_hosts_there_are() -> None:
    with vcenter_lab(datastores=STORES, standalone=1) as lab:
        session = Session(logon(lab))
        assert Makes(session).choose(order(None, empty=MIB)).best()
        session.close()
    with vcenter_lab(datastores=STORES, clusters=0, standalone=1) as lab:
        session = Session(logon(lab))
        assert Makes(session).choose(order(None, empty=MIB)).best()
        session.close()


@pytest.mark.parametrize("name", ["host", "datastore", "network"])
def test_folders_of_other_things_are_none_for_machines(
    makes: Makes, operator: Operator, name: str
) -> None:
    with pytest.raises(NotFound, match=f"there is no folder {name}"):
        make(makes, operator, folder=name)
    assert makes.look("box").stage is Stage.ABSENT
    folder = operator.datacenter.vmFolder.CreateFolder(name)
    assert make(makes, operator, folder=name).parent == folder
    makes.remove("box")
    operator.done(folder.Destroy_Task())


def test_a_folder_is_that_of_the_clusters_datacenter(
    lab: VCenter, makes: Makes, operator: Operator
) -> None:
    there = Operator(lab, datacenter=1)
    mine, other = (o.datacenter.vmFolder.CreateFolder("web") for o in (operator, there))
    assert make(makes, operator, folder="web").parent == mine
    assert make(makes, operator, folder="web", cluster="DC1_C0").parent == other
    with pytest.raises(NotFound):
        make(makes, operator, folder=other._moId)
    prod = operator.datacenter.vmFolder.CreateFolder("prod")
    inner, test = prod.CreateFolder("api"), mine.CreateFolder("api")
    assert make(makes, operator, folder="prod/api").parent == inner
    assert make(makes, operator, folder=test._moId).parent == test
    with pytest.raises(Refused) as told:
        make(makes, operator, folder="api")
    assert "prod/api" in told.value.hint
    assert "web/api" in told.value.hint
    deep = inner.CreateFolder("web")
    assert make(makes, operator, folder="web").parent == mine, "a whole path is meant first"
    assert make(makes, operator, folder="prod/api/web").parent == deep
    makes.remove("box")
    for folder in (prod, mine, other):
        operator.done(folder.Destroy_Task())
    there.close()


def test_a_pool_is_that_of_the_cluster(makes: Makes, operator: Operator) -> None:
    """Each cluster has its own Resources, and a host without a cluster as well."""
    for cluster in ("DC0_C0", "DC1_C0", "DC0_H0"):
        made = make(makes, operator, resource_pool="Resources", cluster=cluster)
        assert made.resourcePool.owner.name == cluster
    with pytest.raises(NotFound, match="no resource pool DC1_C0_RP1"):
        make(makes, operator, resource_pool="DC1_C0_RP1")
    assert make(makes, operator, resource_pool="DC0_C0_RP1").resourcePool.name == "DC0_C0_RP1"


def test_a_vapp_is_no_pool(makes: Makes, operator: Operator) -> None:
    with pytest.raises(Refused, match="DC0_C0_APP0 is a vApp"):
        make(makes, operator, resource_pool="DC0_C0_APP0")
    assert makes.look("box").stage is Stage.ABSENT


# --- machines that there are already ------------------------------------------------


HERE: dict[str, Any] = {
    "cluster": "DC0_C0",
    "folder": "web",
    "resource_pool": "DC0_C0_RP1",
    "datastores": "thi[nc]k?",
}


@pytest.fixture(scope="module")
def folders(vcenter: VCenter) -> Iterator[None]:
    """Two, of which one has the machine."""
    operator = Operator(vcenter)
    made = [operator.datacenter.vmFolder.CreateFolder(name) for name in ("web", "db")]
    yield
    for folder in made:
        operator.done(folder.Destroy_Task())
    operator.close()


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"cluster": "DC1_C0"}, "its cluster is DC0_C0, and not DC1_C0"),
        ({"cluster": "DC0_H0"}, "its cluster is DC0_C0, and not DC0_H0"),
        ({"folder": "db"}, "its folder is web, and not db"),
        ({"resource_pool": "Resources"}, "its resource pool is DC0_C0_RP1, and not Resources"),
        ({"datastores": "vvol.*"}, r"which vvol\.\* does not match"),
        ({"folder": "db", "datastores": "x"}, "its folder is web, and not db; its datastore is"),
    ],
)
def test_a_machine_that_is_elsewhere_is_not_the_one_that_is_asked_for(
    makes: Makes, operator: Operator, folders: None, asked: dict[str, Any], why: str
) -> None:
    """Exit code 0 would say that it is there. What is not asked for may be anything."""
    make(makes, operator, **HERE)
    seen = makes.look("box")
    assert makes.make(order(None, empty=MIB)) == seen
    assert makes.make(order(None, empty=MIB, **HERE)) == seen
    there = order(None, empty=MIB, **{**HERE, **asked})
    for ask in (makes.check, makes.make):
        with pytest.raises(Refused, match=why):
            ask(there)
    assert makes.look("box") == seen
    makes.remove("box")


@pytest.mark.parametrize("asked", ["cluster", "folder", "resource_pool"])
def test_a_place_that_there_is_not_is_told_of_a_machine_that_there_is(
    makes: Makes, operator: Operator, asked: str
) -> None:
    make(makes, operator)
    with pytest.raises(NotFound, match="nowhere"):
        makes.check(order(None, empty=MIB, **{asked: "nowhere"}))
    makes.remove("box")


# --- datastores that make one kind of disks ----------------------------------------


def test_a_thin_disk_is_not_asked_of_a_datastore_that_makes_thick_ones(
    lab: VCenter, makes: Makes, operator: Operator
) -> None:
    with pytest.raises(Refused, match=r"thick \(VVOL\): makes thick disks only") as told:
        make(makes, operator, thin=True, datastores="thick")
    assert told.value.hint == "leave out --thin, or say --eager"
    assert "CreateVM_Task" not in lab.calls()
    make(makes, operator, thin=True)
    assert makes.look("box").disks[0].startswith("[thin]")
    for thin in (None, False):
        make(makes, operator, thin=thin, datastores="thick")
        assert makes.look("box").disks[0].startswith("[thick]")


def test_a_datastore_that_does_not_say_what_it_makes(
    lab: VCenter, makes: Makes, operator: Operator
) -> None:
    with pytest.raises(Uncertain, match="reason the disk cannot be created") as told:
        make(makes, operator, thin=False, datastores="thin")
    assert told.value.hint == "thin may make no such disk: leave the option out, or say --thin"
    assert makes.look("box").stage is Stage.ABSENT
    lab.fault("CreateVM_Task", Drop=True)
    with pytest.raises(Uncertain) as told:
        make(makes, operator, thin=False, datastores="thin")
    assert not told.value.hint
    make(makes, operator, thin=True, datastores="thin")
