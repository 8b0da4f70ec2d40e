"""What is told is as things are now: no old trouble, and no file that is not there."""

from __future__ import annotations

import pytest

from moorline.errors import Refused
from moorline.model import Level
from moorline.ports.results import Trouble
from moorline.testing.toys import BASE
from tests.support.rig import Rig, connection

S1 = BASE / "s1"


@pytest.fixture
def rig() -> Rig:
    return Rig("g1")


def test_a_trouble_that_went_by_itself_is_told_no_more(rig: Rig) -> None:
    rig.owner().attachments.attach("g1", connection("a"))
    (row,) = rig.records.all()
    rig.records.note(row, Trouble("", "refused", "no file", 1.0))
    (view,) = rig.owner().attachments.list()
    assert (view.next, view.trouble) == ("nothing", None)
    assert rig.owner().attachments.show("a")[0].trouble is None
    assert rig.owner().attachments.sweep() == []
    assert rig.records.troubles() == {}


def test_what_is_only_to_be_connected_is_looked_at_too(rig: Rig) -> None:
    rig.owner().attachments.attach("g1", connection("b"))
    before = rig.records.all()
    rig.world.missing.add(f"{S1}/a")
    for dry_run in (True, False, True):
        with pytest.raises(Refused, match="no file"):
            rig.owner().attachments.attach(
                "g1", connection("a"), level=Level.CONNECTED, dry_run=dry_run
            )
        assert rig.records.all() == before
