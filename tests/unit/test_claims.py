"""Who sees to an attachment: the loop leaves alone what a caller claims, and is told after."""

from __future__ import annotations

import pytest

from moorline.core.claims import Claims
from moorline.core.plan import Step
from moorline.errors import Refused
from moorline.model import Attachment, GuestId, Key, Level, LinkName, VolumeId
from moorline.secret import Secret

ROW = Attachment(
    key=Key("h", VolumeId("v"), GuestId("g")),
    backend="toy",
    connection=Secret({}),
    link=LinkName("/l"),
    place="v",
    want=Level.ATTACHED,
)
OTHER = Key("h", VolumeId("w"), GuestId("g"))


@pytest.fixture
def claims() -> Claims:
    return Claims()


@pytest.fixture
def released(claims: Claims) -> list[Key]:
    told: list[Key] = []
    claims.on_release = told.append
    return told


def test_what_nobody_claims_is_the_loops(claims: Claims, released: list[Key]) -> None:
    assert not claims.turns_away(ROW.key)
    with claims.claim(ROW):
        assert claims.turns_away(ROW.key)
        assert not claims.turns_away(OTHER)
    assert not claims.turns_away(ROW.key)
    assert released == [ROW.key]


def test_the_loop_is_not_told_where_it_was_not_turned_away(
    claims: Claims, released: list[Key]
) -> None:
    with claims.claim(ROW):
        pass
    assert released == []


def test_what_a_later_look_has_covered_needs_no_other(claims: Claims, released: list[Key]) -> None:
    with claims.claim(ROW):
        claims.turns_away(ROW.key)
        before = claims.turned_away(ROW.key)
        claims.as_wanted(ROW.key, before)
    assert released == []


def test_news_while_the_last_look_was_under_way_is_not_lost(
    claims: Claims, released: list[Key]
) -> None:
    with claims.claim(ROW):
        claims.turns_away(ROW.key)
        before = claims.turned_away(ROW.key)
        claims.turns_away(ROW.key)
        claims.as_wanted(ROW.key, before)
    assert released == [ROW.key]


def test_a_call_that_ends_in_an_error_hands_over(claims: Claims, released: list[Key]) -> None:
    def fails() -> None:
        with claims.claim(ROW):
            claims.turns_away(ROW.key)
            raise Refused("it cannot be")

    with pytest.raises(Refused):
        fails()
    assert released == [ROW.key]
    assert not claims.turns_away(ROW.key)


def test_it_is_claimed_until_the_last_of_several_callers_ends(
    claims: Claims, released: list[Key]
) -> None:
    with claims.claim(ROW):
        with claims.claim(ROW):
            claims.turns_away(ROW.key)
        assert released == []
        assert claims.turns_away(ROW.key)
    assert released == [ROW.key]


def test_each_caller_is_told_all_steps_since_he_came(claims: Claims) -> None:
    claims.took(ROW.key, Step.DISCONNECT)
    with claims.claim(ROW) as first:
        claims.took(ROW.key, Step.CONNECT)
        claims.took(OTHER, Step.DETACH)
        with claims.claim(ROW) as second:
            claims.took(ROW.key, Step.ATTACH)
        claims.took(ROW.key, Step.DETACH)
        claims.took(ROW.key, Step.DETACH)  # it was asked again
    assert first == [Step.CONNECT, Step.ATTACH, Step.DETACH]
    assert second == [Step.ATTACH]


def test_what_callers_drive_is_pending(claims: Claims) -> None:
    assert claims.pending() == []
    with claims.claim(ROW):
        (pending,) = claims.pending()
        assert (pending.key, pending.want, pending.tries) == (ROW.key, Level.ATTACHED, 0)
        assert pending.running
        claims.waits(ROW.key, 3, "no route")
        (pending,) = claims.pending()
        assert (pending.tries, pending.why) == (3, "no route")
    assert claims.pending() == []
