"""What is asked of a guest, held against what is declared."""

from __future__ import annotations

from typing import Any

import pytest

from moorline.core.privilege import acting_for
from moorline.errors import Denied, Refused
from moorline.operations.guest_options import MAX_DOCUMENT_CHARACTERS, validate
from moorline.ports import GuestOption, GuestOptions, Kind, OneOf

OPTIONS = GuestOptions(
    (
        GuestOption("count", Kind.COUNT, ""),
        GuestOption("memory", Kind.MIB, ""),
        GuestOption("disk-size", Kind.BYTES, ""),
        GuestOption("word", Kind.TEXT, "", choices=("a", "b")),
        GuestOption("name", Kind.TEXT, ""),
        GuestOption("flag", Kind.FLAG, ""),
        GuestOption("image", Kind.FILE, ""),
        GuestOption("template", Kind.DOCUMENT, ""),
    ),
    (OneOf(("image", "disk_size"), needed=True), OneOf(("flag", "word"))),
)
DISK = {"disk_size": 1 << 20}


@pytest.mark.parametrize(
    "given",
    [
        {
            "count": 1,
            "memory": 64,
            "name": "x",
            "flag": True,
            "template": "x" * MAX_DOCUMENT_CHARACTERS,
        },
        {"word": "a"},
        {},
    ],
    ids=["all", "one", "none"],
)
def test_what_is_asked_is_passed_on(given: dict[str, Any]) -> None:
    assert validate(OPTIONS, {**DISK, **given}) == {**DISK, **given}


def test_what_is_empty_is_not_asked() -> None:
    empty = {"count": None, "name": "", "flag": False, "unheard-of": None}
    assert validate(OPTIONS, {**DISK, **empty}) == DISK
    assert validate(GuestOptions(), None) == {}


@pytest.mark.parametrize(
    "given",
    [
        {"nothing": 1},
        {"disk-size": 1},
        {"count": 0},
        {"count": -1},
        {"count": True},
        {"count": 1.0},
        {"count": "1"},
        {"memory": 2**63},
        {"word": "c"},
        {"word": 1},
        {"name": "x" * 5000},
        {"name": ["x"]},
        {"flag": 1},
        {"flag": "yes"},
        {"template": "x" * (MAX_DOCUMENT_CHARACTERS + 1)},
        {"image": "relative"},
        {"image": "/srv/image"},
        {"flag": True, "word": "a"},
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(Refused):
        validate(OPTIONS, {**DISK, **given})


def test_what_is_needed_must_be_there() -> None:
    with pytest.raises(Refused, match="give either --image or --disk-size"):
        validate(OPTIONS, {})


@pytest.mark.parametrize("given", [{"image": "/etc/shadow"}, {**DISK, "template": "<domain/>"}])
def test_a_file_of_the_host_is_for_those_to_name_who_may_read_all(given: dict[str, Any]) -> None:
    assert validate(OPTIONS, given) == given
    with acting_for(trusted=False), pytest.raises(Denied, match="any file of this host"):
        validate(OPTIONS, given)
