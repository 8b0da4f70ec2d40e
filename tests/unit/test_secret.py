"""A secret is in no text that anybody prints."""

from __future__ import annotations

import copy
import json
import pickle

import pytest

from moorline.secret import Secret

HIDDEN = Secret("s3cr3t")


@pytest.mark.parametrize(
    "text", [str(HIDDEN), repr(HIDDEN), f"{HIDDEN}", f"{HIDDEN:>20}", f"{HIDDEN!s} {HIDDEN!r}"]
)
def test_it_never_prints(text: str) -> None:
    assert "s3cr3t" not in text


def test_it_is_not_pickled_or_serialised() -> None:
    for leak in (pickle.dumps, copy.copy, copy.deepcopy, json.dumps):
        with pytest.raises(TypeError):
            leak(HIDDEN)


def test_it_has_no_attributes_to_look_into() -> None:
    with pytest.raises(TypeError):
        vars(HIDDEN)


def test_it_compares_by_value_and_hashes_by_nothing() -> None:
    assert Secret("a") == Secret("a") != Secret("b")
    assert hash(Secret("a")) == hash(Secret("b"))


def test_it_gives_its_value_away_when_asked() -> None:
    assert HIDDEN.reveal() == "s3cr3t"
