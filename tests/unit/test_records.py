"""Attachments and their troubles in the store: what is late changes nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moorline.errors import Conflict
from moorline.model import Attachment, Level
from moorline.ports.results import Trouble
from tests.support.rig import Rig

TROUBLE = Trouble("connect", "Failed", "no answer", 1.0)


@pytest.fixture
def rig() -> Rig:
    rig = Rig("g1")
    rig.attachment("a", "g1", Level.CONNECTED)
    return rig


def the_attachment(rig: Rig) -> Attachment:
    (row,) = rig.records.all()
    return row


def test_the_trouble_of_an_attachment_is_kept_until_it_is_over(rig: Rig) -> None:
    row = the_attachment(rig)
    rig.records.note(row, TROUBLE)
    assert rig.records.trouble(row.key) == TROUBLE
    rig.records.note(row, None)
    assert rig.records.trouble(row.key) is None


def test_the_trouble_of_an_attachment_that_changed_is_not_that_of_the_new_one(rig: Rig) -> None:
    late = the_attachment(rig)
    rig.records.put(replace(late, want=Level.ATTACHED))
    rig.records.note(late, TROUBLE)
    assert rig.records.trouble(late.key) is None


def test_the_trouble_of_an_attachment_that_is_gone_does_not_come_back(rig: Rig) -> None:
    late = the_attachment(rig)
    rig.records.forget(late)
    rig.records.note(late, TROUBLE)
    assert not rig.records.troubles()


def test_a_late_answer_neither_replaces_nor_drops_a_newer_attachment(rig: Rig) -> None:
    late = the_attachment(rig)
    newer = rig.records.put(replace(late, want=Level.ATTACHED))
    with pytest.raises(Conflict):
        rig.records.put(replace(late, want=Level.ABSENT))
    with pytest.raises(Conflict):
        rig.records.forget(late)
    assert the_attachment(rig) == newer


def test_a_disk_that_could_not_be_seen_is_not_remembered_as_ours(rig: Rig) -> None:
    """Else any disk whose path is not told would be that one."""
    rig.records.release(the_attachment(rig), "")
    assert (rig.records.all(), dict(rig.records.released())) == ([], {})
