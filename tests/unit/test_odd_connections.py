"""What a connection says of every volume, said oddly: refused, never passed over."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from moorline.errors import Refused
from moorline.model import DiskOptions, Level
from moorline.secret import Secret
from tests.support.rig import Rig

UNUSABLE: list[Any] = [
    "vol.0001",
    ["a"],
    {"a": 1},
    7,
    0,
    True,
    False,
    "a\n",
    "",
    " ",
    "x" * 65,
    "é",
]


@pytest.fixture
def rig() -> Rig:
    return Rig("g1")


def connection(data: dict[str, Any] | None = None, **beside: Any) -> dict[str, Any]:
    return {
        "driver_volume_type": "toy",
        "data": {"share": "s1", "name": "a", **(data or {})},
        **beside,
    }


def refuse(rig: Rig, asked: dict[str, Any], why: str, volume: str | None = None) -> None:
    with pytest.raises(Refused, match=why):
        rig.owner().attachments.attach("g1", asked, volume=volume)
    assert (rig.world.faults.count, rig.records.all()) == (0, [])


@pytest.mark.parametrize("value", UNUSABLE, ids=repr)
@pytest.mark.parametrize("field", ["volume_id", "serial"])
def test_an_unusable_id_is_refused_wherever_it_stands(rig: Rig, field: str, value: Any) -> None:
    for asked in (
        connection({field: value}),
        connection(**{field: value}),
        connection({field: value, "volume_id" if field == "serial" else "serial": "a"}),
        connection({"volume_id": "a"}, **{field: value}),
    ):
        refuse(rig, asked, "volume id|two volumes")
        refuse(rig, asked, "volume id|two volumes", volume="a")


@pytest.mark.parametrize("value", ["", "vol.0001", "a\n", "x" * 65])
def test_an_unusable_id_that_is_asked_for_is_refused(rig: Rig, value: str) -> None:
    refuse(rig, connection(), "volume id", volume=value)


@pytest.mark.parametrize(
    "asked",
    [
        connection({"volume_id": "a", "serial": "b"}),
        connection({"volume_id": "a"}, serial="b"),
        connection(volume_id="a", serial="b"),
        connection({"serial": "a"}, serial="b"),
        connection({"volume_id": "a"}, volume_id="b"),
    ],
)
def test_two_ids_are_refused(rig: Rig, asked: dict[str, Any]) -> None:
    refuse(rig, asked, "two volumes: a and b")


@pytest.mark.parametrize(
    "asked",
    [
        connection({"volume_id": "a"}, serial="a"),  # as Nova completes Cinder's
        connection({"volume_id": "a", "serial": None}),
        connection(serial="a", volume_id=None),
    ],
)
def test_what_cinder_and_nova_say_is_one_id(rig: Rig, asked: dict[str, Any]) -> None:
    assert rig.owner().attachments.attach("g1", asked).view.volume == "a"


def test_without_an_id_one_is_derived(rig: Rig) -> None:
    assert (
        len(rig.owner().attachments.attach("g1", connection({"volume_id": None})).view.volume) == 36
    )


@pytest.mark.parametrize("value", ["vol.0001", "a\n", "", "x" * 65])
def test_detaching_what_cannot_be_a_volume_is_not_success(rig: Rig, value: str) -> None:
    rig.owner().attachments.attach("g1", connection())
    with pytest.raises(Refused, match="no volume id"):
        rig.owner().attachments.detach("g1", value)


def test_an_attachment_of_old_whose_connection_bears_such_an_id_can_go(rig: Rig) -> None:
    rig.owner().attachments.attach("g1", connection())
    (row,) = rig.records.all()
    rig.records.put(replace(row, connection=Secret(connection({"volume_id": "vol.0001"}))))
    assert rig.owner().attachments.sweep() == []
    rig.world.guests[row.key.guest].running = False
    rig.world.guests[row.key.guest].live.clear()
    rig.owner().attachments.detach("g1", row.key.volume)
    assert rig.records.all() == []


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("mode", ["wo", ["ro"], "", 1, False, "RO"], ids=repr)
def test_an_odd_access_mode_is_refused(rig: Rig, mode: Any, beside: bool) -> None:
    field = {"access_mode": mode}
    refuse(rig, connection(**field) if beside else connection(field), "access_mode")


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("value", [True, 1, "true", [], "", 0], ids=repr)
def test_whether_it_is_encrypted_is_said_plainly(rig: Rig, value: Any, beside: bool) -> None:
    field = {"encrypted": value}
    refuse(rig, connection(**field) if beside else connection(field), "encrypted")


@pytest.mark.parametrize(
    "asked",
    [
        connection({"access_mode": "rw"}, access_mode="ro"),
        connection({"access_mode": "ro"}, access_mode="rw"),
        connection(access_mode="ro"),
    ],
)
def test_read_only_is_heeded_wherever_it_stands(rig: Rig, asked: dict[str, Any]) -> None:
    rig.owner().attachments.attach("g1", asked, level=Level.CONNECTED)
    (row,) = rig.records.all()
    assert row.options == DiskOptions(readonly=True)


@pytest.mark.parametrize("value", ["yes", "true", "", 1, 0, [True], {}], ids=repr)
def test_a_discard_that_is_neither_true_nor_false_is_refused(rig: Rig, value: Any) -> None:
    refuse(rig, connection({"discard": value}), "discard is not true or false")
    for usable in (True, False, None):
        rig.owner().attachments.attach("g1", connection({"discard": usable}))
