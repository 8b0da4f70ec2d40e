"""The record of slots, and the choice of a place."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorline.hypervisors.powervm.mappings import DiskAddress, ScsiMapping, choose
from moorline.hypervisors.powervm.remembered_slots import MemorySlots, Slot, Slots, StoredSlots
from moorline.model import GuestId, VolumeId
from moorline.testing.toys import MemoryStore

G, H = GuestId("G"), GuestId("H")
A, B = VolumeId("a"), VolumeId("b")


@pytest.fixture(params=["memory", "stored"])
def slots(request: pytest.FixtureRequest) -> Slots:
    return MemorySlots() if request.param == "memory" else StoredSlots(MemoryStore(), "ho/st")


def test_what_is_put_is_there_until_it_is_dropped(slots: Slots) -> None:
    assert slots.of(G) == {}
    slots.put(G, A, Slot("/x"))
    slots.put(G, A, Slot("/x", 2, "lun1"))
    slots.put(G, B, Slot("/y", 2, "lun2"))
    slots.put(H, A, Slot("/x", 3, "lun1"))
    assert slots.of(G) == {A: Slot("/x", 2, "lun1"), B: Slot("/y", 2, "lun2")}
    slots.drop(G, A)
    slots.drop(G, A)
    slots.drop(GuestId("nobody"), A)
    assert slots.of(G) == {B: Slot("/y", 2, "lun2")}
    assert slots.of(H) == {A: Slot("/x", 3, "lun1")}


def test_a_place_belongs_to_the_last_volume_that_had_it(slots: Slots) -> None:
    slots.put(G, A, Slot("", 2, "lun1"))
    slots.put(H, A, Slot("", 2, "lun1"))
    slots.put(G, B, Slot("/y", 2, "lun1"))
    assert slots.of(G) == {B: Slot("/y", 2, "lun1")}
    assert slots.of(H) == {A: Slot("", 2, "lun1")}


def test_places_that_are_not_known_yet_do_not_meet(slots: Slots) -> None:
    slots.put(G, A, Slot("/x"))
    slots.put(G, B, Slot("/y"))
    assert slots.of(G).keys() == {A, B}


def test_d7_the_record_is_json_that_another_process_reads() -> None:
    store = MemoryStore()
    StoredSlots(store, "h1").put(G, A, Slot("/ä", 2, "0x81"))
    assert StoredSlots(store, "h1").of(G) == {A: Slot("/ä", 2, "0x81")}
    assert StoredSlots(store, "h2").of(G) == {}
    (entry,) = store.list("/moorline/slots/h1/")[0]
    assert json.loads(entry.value) == {
        "path": "/ä",
        "slot": 2,
        "lua": "0x81",
        "client": 0,
        "shared": False,
    }


def test_who_only_looks_writes_nothing() -> None:
    store = MemoryStore()
    StoredSlots(store, "h1").put(G, A, Slot("/x", 2, "lun1"))
    drift = StoredSlots(store, "h1", own=False)
    drift.put(G, A, Slot("/x", 3, "lun1"))
    drift.put(G, B, Slot("/y", 2, "lun1"))
    drift.drop(G, A)
    assert drift.of(G) == {A: Slot("/x", 2, "lun1")}


def mapping(client: str, slot: int, server_slot: int, lua: str) -> ScsiMapping:
    return ScsiMapping(client, 1, True, slot, server_slot, bool(lua), "/f", "", "", lua, None)


def test_a_bus_of_another_client_is_never_used() -> None:
    assert choose([mapping("H", 2, 2, "lun1")], "G", Slot("")) == DiskAddress()


def test_orphans_are_no_bus() -> None:
    assert choose([mapping("G", 0, 5, "lun1")], "G", Slot("")) == DiskAddress()
    halved = replace(mapping("G", 2, 5, "lun1"), paired=False)
    assert choose([halved], "G", Slot("")) == DiskAddress()


def test_an_empty_bus_is_used() -> None:
    empty = mapping("G", 2, 2, "")
    assert choose([empty], "G", Slot("")) == DiskAddress(bus=empty)


@given(
    there=st.lists(
        st.tuples(st.sampled_from("GH"), st.integers(2, 4), st.sampled_from(["1", "2", "3"])),
        unique=True,
        max_size=12,
    ),
    slot=st.integers(0, 5),
    lua=st.sampled_from(["", "1", "2", "3"]),
)
def test_a_place_is_free_and_its_adapters_belong_together(
    there: list[tuple[str, int, str]], slot: int, lua: str
) -> None:
    found = [mapping(c, s, s + (100 if c == "H" else 0), lun) for c, s, lun in there]
    place = choose(found, "G", Slot("", slot, lua))
    mine = {(m.slot, m.lua) for m in found if m.client == "G"}
    if slot and lua and (slot, lua) not in mine:
        assert place.lua == lua
        assert slot == (place.bus.slot if place.bus else place.slot)
    if place.bus:
        assert place.bus.client == "G"
        assert place.slot is None
        assert (place.bus.slot, place.lua) not in mine
    if place.slot:
        assert place.slot not in {s for s, _ in mine}
