"""Choosing a datastore: the table of cases, and what holds for all."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorline.errors import Refused
from moorline.hypervisors.vsphere.provision.datastore_choice import (
    TYPES,
    Datastore,
    DiskKind,
    Wanted,
    choose,
)
from moorline.hypervisors.vsphere.provision.disk_sizes import MIB

GIB = 1 << 30


def datastore(name: str, type: str = "VVOL", free: int = 100, **more: object) -> Datastore:
    given = {"accessible": True, "shared": True, **more}
    return Datastore(f"id-{name}", name, type, 1000 * GIB, free * GIB, **given)  # type: ignore[arg-type]


GOOD = datastore("good", free=1)
WANTED = Wanted(20 * MIB)


def against(candidate: Datastore, wanted: Wanted = WANTED) -> str:
    return choose([candidate], wanted).verdicts[0].against


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (datastore("a", accessible=False), "not accessible"),
        (datastore("a", maintenance="inMaintenance"), "maintenance"),
        (datastore("a", maintenance="enteringMaintenance"), "maintenance"),
        (datastore("a", "CIFS"), "type"),
        (datastore("a", "VSAN"), "type"),
        (datastore("a", "vvol"), "type"),
        (datastore("a", "OTHER"), "type"),
        (datastore("a", free=0), "free"),
    ],
)
def test_what_is_passed_over_however_much_room_it_has(bad: Datastore, reason: str) -> None:
    assert reason in against(bad)
    assert choose([bad, GOOD], WANTED).best().datastore == GOOD


@pytest.mark.parametrize("type", ["VMFS", "NFS", "NFS41", "vsan", "VVOL"])
def test_all_five_types_are_taken(type: str) -> None:
    assert not against(datastore("a", type))
    assert not against(datastore("a", type), replace(WANTED, kind=DiskKind.STREAM))


@pytest.mark.parametrize("kind", [DiskKind.SPARSE, DiskKind.FLAT])
def test_object_stores_take_streams_only(kind: DiskKind) -> None:
    wanted = replace(WANTED, kind=kind)
    passed_over = {type for type in TYPES if against(datastore("a", type), wanted)}
    assert passed_over == {"vsan", "VVOL"}


def test_the_most_free_space_wins_among_those_that_several_hosts_reach() -> None:
    local = datastore("local", free=900, shared=False)
    some, more = datastore("some", free=100), datastore("more", free=200)
    found = choose([some, local, more], WANTED)
    assert [v.datastore.name for v in found.verdicts] == ["more", "some", "local"]
    assert choose([local], WANTED).best().datastore == local


def test_the_disk_and_the_reserve_must_fit() -> None:
    small = datastore("small", free=10)
    assert not against(small, Wanted(10 * GIB))
    assert "free" in against(small, Wanted(10 * GIB + MIB))
    assert "free" in against(small, Wanted(10 * GIB, reserve=1))


def test_a_size_that_vvol_refuses_goes_elsewhere_first() -> None:
    odd = Wanted(3 * MIB + 65536)
    vmfs, vvol = datastore("vmfs", "VMFS", free=50), datastore("vvol", free=900)
    found = choose([vvol, vmfs], odd)
    assert (found.best().datastore, found.best().size) == (vmfs, odd.size)
    assert f"the next is {4 * MIB} bytes" in found.verdicts[1].against
    rounded = choose([vvol, vmfs], replace(odd, round_up=True)).best()
    assert (rounded.datastore, rounded.size) == (vvol, 4 * MIB)


def test_nothing_but_vvol_and_an_odd_size_is_refused_with_the_numbers() -> None:
    lost = [datastore(f"lost{n}", accessible=False) for n in range(2)]
    with pytest.raises(Refused) as told:
        choose([*lost, datastore("vvol")], Wanted(3 * MIB + 65536)).best()
    assert told.value.message == (
        f"no datastore will do: vvol (VVOL): a disk of {3 * MIB + 65536} bytes is not a whole"
        f" number of MiB, which VVOL asks for: the next is {4 * MIB} bytes (4 MiB);"
        " lost0 (VVOL), lost1 (VVOL): is not accessible"
    )
    assert told.value.hint == f"round it up, which adds {MIB - 65536} bytes at its end: --round-up"


def test_names_match_as_a_whole() -> None:
    wanted = replace(WANTED, names="gold-[0-9]+")
    assert not against(datastore("gold-1"), wanted)
    assert "name" in against(datastore("gold-1-old"), wanted)
    assert "name" in against(datastore("my-gold-1"), wanted)
    with pytest.raises(Refused, match="regular expression"):
        choose([], replace(WANTED, names="("))


def test_a_policy_names_its_datastores() -> None:
    wanted = replace(WANTED, policy="gold", matching=frozenset({"id-a"}))
    assert not against(datastore("a"), wanted)
    assert "'gold'" in against(datastore("b"), wanted)
    assert against(datastore("a"), replace(wanted, matching=frozenset()))


def test_it_explains_itself() -> None:
    found = choose([datastore("b", free=5), datastore("c", accessible=False), GOOD], WANTED)
    assert found.explain() == [
        "b (VVOL): is taken, 5.0 GiB free",
        "good (VVOL): could be taken, 1.0 GiB free",
        "c (VVOL): is not accessible",
    ]
    with pytest.raises(Refused, match=r"c \(VVOL\): is not accessible"):
        choose([datastore("c", accessible=False)], WANTED).best()
    with pytest.raises(Refused, match="there is none"):
        choose([], WANTED).best()


DATASTORES = st.builds(
    Datastore,
    id=st.uuids().map(str),
    name=st.uuids().map(str),
    type=st.sampled_from([*TYPES, "CIFS", ""]),
    capacity=st.just(1 << 50),
    free=st.integers(-1, 1 << 50),
    accessible=st.booleans(),
    maintenance=st.sampled_from(["", "normal", "inMaintenance", "other"]),
    shared=st.booleans(),
)


@given(st.lists(DATASTORES, max_size=8), st.integers(1, 1 << 45), st.booleans(), st.randoms())
def test_what_is_taken_fits_and_order_does_not_matter(
    candidates: list[Datastore], size: int, round_up: bool, order: random.Random
) -> None:
    wanted = Wanted(size, round_up=round_up)
    found = choose(candidates, wanted)
    shuffled = list(candidates)
    order.shuffle(shuffled)
    assert choose(shuffled, wanted) == found
    assert len(found.explain()) == len(candidates)
    for verdict in found.verdicts:
        if not verdict.against:
            taken = verdict.datastore
            assert taken.accessible
            assert taken.free >= verdict.size >= size
            assert taken.type != "VVOL" or verdict.size % MIB == 0
