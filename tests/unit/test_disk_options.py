"""The options of a disk: what can be said of one, wherever it is said."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import click
import pytest

from moorline.cli.commands import main
from moorline.cli.typed_disk_options import asked, of_a_launch
from moorline.disk_options import BY_NAME, LIMITS, MOST, OPTIONS, Kind, refuse_others, validate
from moorline.errors import Refused
from moorline.model import DiskOptions
from tests.support.rig import Rig, connection

NUMBERS = [each.name for each in OPTIONS if each.kind in (Kind.COUNT, Kind.BYTES)]
WORDS = [each.name for each in OPTIONS if each.kind in (Kind.TEXT, Kind.CHOICE)]
CONTRADICTIONS: list[dict[str, Any]] = [
    {"total_iops_sec": 1, "read_iops_sec": 1},
    {"total_bytes_sec": 1, "write_bytes_sec": 1},
    {"total_iops_sec_max": 1, "total_iops_sec": 2},
    {"total_iops_sec_max": 5},
    {"read_iops_sec": 1, "write_iops_sec_max": 5},
    {"total_iops_sec": 1, "total_iops_sec_max_length": 5},
    {"total_iops_sec": 1, "total_iops_sec_max": MOST, "total_iops_sec_max_length": 2},
    {"size_iops_sec": 4096},
    {"size_iops_sec": 4096, "total_bytes_sec": 5},
    {"io": "native", "cache": "writeback"},
    {"device": "cdrom"},
    {"reservations": True},
    {"device": "cdrom", "readonly": True, "reservations": True},
    {"logical_block_size": 600},
    {"logical_block_size": 4096, "physical_block_size": 512},
    {"logical_block_size": 1},
    {"wwn": "5000c50015ea71a"},
    {"wwn": "5000c50015ea71ag"},
]


def test_every_option_is_declared() -> None:
    assert {each.name for each in fields(DiskOptions)} == {*BY_NAME}


@pytest.mark.parametrize("name", ["attach", "launch", "fleet attach", "set"])
def test_every_command_takes_what_is_declared(name: str) -> None:
    if name == "launch":
        found = {each.name for each in of_a_launch()}
        assert found == {each.name for each in OPTIONS if not each.one} | {"boot"}
        return
    command: click.Command = main
    for word in name.split():
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(command), word) or command
    have = {each.name for each in command.params}
    wanted = {*LIMITS} if name == "set" else {*BY_NAME}
    assert wanted - have == ({"target"} if name.startswith("fleet") else set())


def test_what_is_not_typed_is_not_asked_for() -> None:
    assert asked(dict.fromkeys(BY_NAME)) == DiskOptions()
    assert DiskOptions().asked() == {}
    assert DiskOptions(total_iops_sec=0, shared=True).asked() == {
        "total_iops_sec": 0,
        "shared": True,
    }


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize(
    "value", ["500", [500], -1, math.nan, math.inf, 2**70, True, 1.5, "", "<x/>"], ids=repr
)
def test_an_odd_number_is_refused(name: str, value: Any) -> None:
    with pytest.raises(Refused, match=f"{name} is not a whole number"):
        validate(DiskOptions(**{name: value}))


@pytest.mark.parametrize("name", WORDS)
@pytest.mark.parametrize("value", [5, ["none"], {"a": 1}, True, None, b"none"], ids=repr)
def test_an_odd_word_is_refused(name: str, value: Any) -> None:
    with pytest.raises(Refused, match=name):
        validate(DiskOptions(**{name: value}))


@pytest.mark.parametrize("name", [each.name for each in OPTIONS if each.choices])
@pytest.mark.parametrize("value", ["NONE", " ", "ignored", "<a/>", "none\0"])
def test_what_is_no_choice_is_refused(name: str, value: str) -> None:
    with pytest.raises(Refused, match=f"{name} is none of"):
        validate(DiskOptions(**{name: value}))


@pytest.mark.parametrize("said", CONTRADICTIONS, ids=repr)
def test_what_contradicts_itself_is_refused_before_anything_is_recorded(
    said: dict[str, Any],
) -> None:
    rig = Rig("g1")
    with pytest.raises(Refused):
        rig.owner().attachments.attach("g1", connection(), options=DiskOptions(**said))
    assert (rig.world.faults.count, rig.records.all()) == (0, [])


def test_a_limit_that_is_none_contradicts_nothing() -> None:
    validate(DiskOptions(total_iops_sec=0, read_iops_sec=5, total_iops_sec_max=0))


@pytest.mark.parametrize("option", OPTIONS, ids=lambda each: each.name)
def test_a_hypervisor_refuses_each_option_that_it_does_not_take(option: Any) -> None:
    value = option.choices[0] if option.choices else {Kind.FLAG: True, Kind.TEXT: "x"}
    if isinstance(value, dict):
        value = value.get(option.kind, max(1, option.least))
    with pytest.raises(Refused, match=f"toys have no {option.typed}"):
        refuse_others("toys", DiskOptions(**{option.name: value}), ())
    refuse_others("toys", DiskOptions(**{option.name: value}), [option.name])
