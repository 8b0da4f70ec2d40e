"""The key of a LUKS volume is where its guest is, before the guest comes, and nowhere else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moorline import config, fleet_wiring, installed
from moorline.core.reconciler import Reconciler
from moorline.errors import Failed, Refused
from moorline.model import DiskOptions, GuestId
from tests.support.toy_fleet import ToyFleet
from tests.unit.fleet.test_fleet_operations import Person

G1 = GuestId("g1")
ENCRYPTION = {"provider": "luks", "key": "cmlnaHQ="}


@pytest.fixture
def person() -> Person:
    toys = ToyFleet(["h1", "h2"], {"g1": "h1"})
    toys.settle()
    toys.attach("g1", "a", encryption=ENCRYPTION)
    toys.settle()
    return Person(toys)


def keys(person: Person) -> dict[str, list[bytes]]:
    sites = person.toys.sites.items()
    return {name: [key.reveal() for key in site.world.keys.values()] for name, site in sites}


@pytest.mark.parametrize("running", [True, False])
def test_it_goes_with_its_guest(person: Person, running: bool) -> None:
    toys = person.toys
    assert keys(person) == {"h1": [b"right"], "h2": []}
    if not running:
        toys.mover("h1").stop(G1)
        toys.settle()
    assert person.fleet().migrate("g1", "h2").host == "h2"
    toys.settle()
    assert keys(person) == {"h1": [], "h2": [b"right"]}
    assert toys.sites["h2"].world.guests[G1].running is running
    toys.mover("h2").start(G1)
    assert person.fleet().detach("g1", "a").steps == ["detach"]
    toys.settle()
    assert keys(person) == {"h1": [], "h2": []}


def test_a_guest_is_not_sent_to_a_host_without_it(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Reconciler, "unlock", lambda *_: None)  # an earlier release
    person.toys.sites["h2"].agent = None
    with pytest.raises(Failed, match="there is no key of a"):
        person.fleet().migrate("g1", "h2")
    person.toys.settle()
    assert person.toys.sites["h1"].world.guests[G1].running
    assert keys(person) == {"h1": [b"right"], "h2": []}


def wanted(connection: dict[str, Any], tmp_path: Path) -> Any:
    settings = config.load([], installed.options, state_dir=tmp_path)
    return fleet_wiring.wanted_of_fleet(settings, connection, None, None, DiskOptions())


def test_what_a_fleet_is_asked_for_has_its_key_and_can_be_deciphered(tmp_path: Path) -> None:
    data = {"export": "filer:/vol", "name": "a.luks", "format": "luks"}
    image = {"driver_volume_type": "nfs", "data": data}
    row = wanted({**image, "encryption": ENCRYPTION}, tmp_path)
    assert json.loads(json.dumps(row.connection.reveal()))["encryption"] == ENCRYPTION
    with pytest.raises(Refused, match="its key is not given"):
        wanted(image, tmp_path)
    lun = {"target_portal": "192.0.2.1:3260", "target_iqn": "iqn.2026-01.lab:a", "target_lun": 1}
    device = {"driver_volume_type": "iscsi", "data": {**lun, "encrypted": True}}
    assert wanted({**device, "encryption": ENCRYPTION}, tmp_path).backend == "iscsi"
    served = {**device, "driver_volume_type": "iscsi_qemu", "encryption": ENCRYPTION}
    with pytest.raises(Refused, match="not supported"):
        wanted(served, tmp_path)
