"""One storage, spelled in two ways, on two hosts: it is one, as it is on one host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moorline import config, fleet_wiring, installed
from moorline.errors import Refused
from moorline.fleet.ownership import Ownership
from moorline.model import Attachment, DiskOptions
from tests.support.toy_fleet import ToyFleet

A, B = "2f2a9c4e-1111-4222-8333-abcdefabcdef", "8f2a9c4e-1111-4222-8333-abcdefabcdef"


def on(kind: str, export: str, name: str = "volume-a") -> Mapping[str, Any]:
    return {
        "driver_volume_type": kind,
        "data": {"export": export, "name": name, "format": "raw"},
    }


def iscsi(**data: object) -> Mapping[str, Any]:
    return {"driver_volume_type": "iscsi", "data": data}


IQN, OTHER_IQN = "iqn.2010-10.org.openstack:a", "iqn.2010-10.org.openstack:b"
ONE_STORAGE = {
    "a registry of two": (on("quobyte", "reg1,reg2/fast"), on("quobyte", "reg2/fast")),
    "two of a registry": (on("quobyte", "reg2/fast"), on("quobyte", "reg1,reg2/fast")),
    "one in common": (on("quobyte", "reg1,reg2/fast"), on("quobyte", "reg3,reg2/fast")),
    "port, scheme, case": (
        on("quobyte", "reg1,reg2/fast"),
        on("quobyte", "quobyte://REG2:7861/fast"),
    ),
    "a directory of an export": (
        on("nfs", "192.0.2.1:/srv", "fast/volume-a"),
        on("nfs", "192.0.2.1:/srv/fast"),
    ),
    "the whole of a server": (on("nfs", "nas:/", "fast/volume-a"), on("nfs", "NAS.:/fast/")),
    "a directory of a volume": (
        on("glusterfs", "nas:/gv0", "fast/volume-a"),
        on("glusterfs", "nas:gv0/fast"),
    ),
    "a directory of an SMB share": (
        on("smbfs", "//nas/Share", "fast/volume-a"),
        on("smbfs", "//NAS/share/fast"),
    ),
    "a cluster and its servers": (
        on("vzstorage", "mds1,mds2:/cluster1"),
        on("vzstorage", "cluster1"),
    ),
    "portals in another order": (
        iscsi(
            target_portals=["192.0.2.1:3260", "192.0.2.2:3260"],
            target_iqns=[IQN, OTHER_IQN],
            target_luns=[1, 2],
        ),
        iscsi(
            target_portals=["192.0.2.2:3260", "192.0.2.1:3260"],
            target_iqns=[OTHER_IQN, IQN],
            target_luns=[2, 1],
        ),
    ),
    "another portal": (
        iscsi(target_portal="192.0.2.1:3260", target_iqn=IQN, target_lun=1),
        iscsi(target_portal="192.0.2.2:3260", target_iqn=IQN, target_lun=1),
    ),
}
TWO_STORAGES = {
    "another volume": (on("quobyte", "reg1/fast"), on("quobyte", "reg1/slow")),
    "another file": (on("quobyte", "reg1/fast"), on("quobyte", "reg1/fast", "volume-b")),
    "another directory": (on("nfs", "nas:/srv", "a/volume-a"), on("nfs", "nas:/srv/b")),
    "another cluster": (on("vzstorage", "cluster1"), on("vzstorage", "cluster2")),
}


@pytest.fixture
def fleet() -> ToyFleet:
    fleet = ToyFleet(["h1", "h2"], {"g1": "h1", "g2": "h2"})
    fleet.settle()
    return fleet


def asked(state: Path, connection: Mapping[str, Any], volume: str) -> Attachment:
    settings = config.load([], installed.options, state_dir=state)
    return fleet_wiring.wanted_of_fleet(settings, connection, None, volume, DiskOptions())


@pytest.mark.parametrize("spellings", ONE_STORAGE.values(), ids=ONE_STORAGE)
def test_one_storage(
    fleet: ToyFleet, tmp_path: Path, spellings: tuple[Mapping[str, Any], Mapping[str, Any]]
) -> None:
    ownership = Ownership(fleet.person)
    one, another = spellings
    ownership.attach(ownership.find("g1"), asked(tmp_path, one, A))
    with pytest.raises(Refused, match=f"the same storage is volume {A}"):
        ownership.attach(ownership.find("g2"), asked(tmp_path, another, B))


@pytest.mark.parametrize("spellings", ONE_STORAGE.values(), ids=ONE_STORAGE)
def test_what_an_earlier_version_recorded_is_one_of_the_places(
    fleet: ToyFleet, tmp_path: Path, spellings: tuple[Mapping[str, Any], Mapping[str, Any]]
) -> None:
    """It recorded one spelling: whoever asks with more of them finds that."""
    ownership = Ownership(fleet.person)
    earlier = replace(asked(tmp_path, spellings[0], A), aliases=())
    ownership.attach(ownership.find("g1"), earlier)
    again = asked(tmp_path, spellings[0], B)
    with pytest.raises(Refused, match=f"the same storage is volume {A}"):
        ownership.attach(ownership.find("g2"), again)


@pytest.mark.parametrize("spellings", TWO_STORAGES.values(), ids=TWO_STORAGES)
def test_two_storages(
    fleet: ToyFleet, tmp_path: Path, spellings: tuple[Mapping[str, Any], Mapping[str, Any]]
) -> None:
    ownership = Ownership(fleet.person)
    one, another = spellings
    ownership.attach(ownership.find("g1"), asked(tmp_path, one, A))
    ownership.attach(ownership.find("g2"), asked(tmp_path, another, B))
