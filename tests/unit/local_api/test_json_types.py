"""Types to schemas, JSON to values: what does not fit exactly is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorline.core.validation import parse_json
from moorline.errors import Refused
from moorline.local_api import json_types
from moorline.local_api.routes import ROUTES
from moorline.model import Caching, DiskOptions, Level

ATTACH = next(route for route in ROUTES if route.name == "attach")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"\xff{}",
        b"[NaN]",
        b"[Infinity]",
        b"[1e999]",
        b"[9223372036854775808]",
        b"[" + b"9" * 5000 + b"]",
        b'{"a": 1, "a": 2}',
        b'["a\\u0000b"]',
        b'["\\ud800"]',
        b'{"\\u0000": 1}',
        b"[" * 17 + b"]" * 17,
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ],
)
def test_hostile_json_is_refused(text: bytes) -> None:
    with pytest.raises(Refused):
        parse_json(text)


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (str, ["", "x"], [1, None, True, [], "x" * 4097]),
        (int, [0, -1, 2.0], ["1", 1.5, True, None]),
        (float, [0, 1.5], ["1", True, None]),
        (bool, [True], [0, "true", None]),
        (str | None, ["x", None], [1]),
        (Literal["raw", "qcow2"] | None, ["raw", None], ["vmdk", 1]),
        (Level, ["absent", "attached"], ["ATTACHED", 2, None]),
        (Caching, ["direct"], ["DIRECT", 0]),
        (Sequence[int], [[], [1]], [["1"], {}, "1", 1]),
        (Mapping[str, Any], [{}, {"a": [1]}], [[], "a"]),
        (Mapping[str, Any] | str, ["x", {}], [1, [], None]),
        (Path, ["/x"], [1]),
        (DiskOptions, [{}, {"bus": "scsi", "boot": 1}], [{"colour": "red"}, {"boot": "1"}, []]),
    ],
)
def test_values_fit_or_are_refused(kind: Any, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        json_types.decode(kind, value)
    for value in bad:
        with pytest.raises(Refused):
            json_types.decode(kind, value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(
    st.dictionaries(st.sampled_from([*ATTACH.fields, "other"]), json_values),
)
def test_any_request_is_bound_or_refused(given_: dict[str, Any]) -> None:
    try:
        bound = ATTACH.bind(given_)
    except Refused:
        return
    assert {"guest", "connection"} <= bound.keys() <= ATTACH.fields.keys()
    assert 0 <= bound.get("timeout", 0) <= 86400


def test_no_refusal_repeats_what_was_given() -> None:
    secret = "hunter2-PLANTED"
    for given_ in (
        {secret: 1},
        {"guest": [secret], "connection": {}},
        {"guest": "g", "connection": [secret]},
        {"guest": "g", "connection": {}, "format": secret},
        {"guest": "g", "connection": {}, "options": {secret: secret}},
        {"guest": "g", "connection": {}, "level": secret},
    ):
        with pytest.raises(Refused) as refused:
            ATTACH.bind(given_)
        assert secret not in str(refused.value)
    for text in (f'["{secret}"', f'{{"{secret}": 1, "{secret}": 2}}', f"{secret}"):
        with pytest.raises(Refused) as refused:
            parse_json(text.encode())
        assert secret not in str(refused.value)


def test_values_survive_the_way() -> None:
    options = DiskOptions("scsi", "sda", readonly=True, boot=2)
    assert json_types.decode(DiskOptions, json_types.encode(options)) == options
    assert json_types.encode({"at": Path("/x"), "level": Level.CONNECTED, "s": {1}}) == {
        "at": "/x",
        "level": "connected",
        "s": [1],
    }


@given(st.builds(DiskOptions))
def test_what_nobody_asked_for_is_not_sent_and_comes_back(options: DiskOptions) -> None:
    """An agent of an earlier version refuses what it does not know."""
    sent = json_types.encode({"options": options}, brief=True)["options"]
    assert all(sent.values())
    assert json_types.decode(DiskOptions, sent) == options
    assert json_types.encode(DiskOptions(), brief=True) == {}
