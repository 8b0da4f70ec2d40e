"""Attaching what is wanted already, with another connection: what stands is not lost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from moorline.errors import Failed, NotOurs, Refused
from moorline.model import Attachment, DiskOptions, Format, GuestId, Level, VolumeId
from moorline.testing.toys import BASE
from tests.support.rig import Rig

S1 = str(BASE / "s1")
READONLY = DiskOptions(readonly=True)
HERE = VolumeId("a")


def connection(**data: object) -> dict[str, Any]:
    return {"driver_volume_type": "toy", "data": {"share": "s1", "name": "a", **data}}


GOOD = connection(volume_id="a", format="raw")


@pytest.fixture
def rig() -> Rig:
    rig = Rig("g1", "g2")
    rig.world.formats[f"{S1}/a"] = "raw"
    return rig


def stored(rig: Rig) -> Attachment:
    (row,) = rig.records.all()
    return row


def data_of(row: Attachment) -> Any:
    return row.connection.reveal()["data"]


@pytest.mark.parametrize("level", [Level.CONNECTED, Level.ATTACHED])
@pytest.mark.parametrize("again", [Level.CONNECTED, Level.ATTACHED])
def test_a_refused_connection_leaves_the_attachment_that_stands(
    rig: Rig, level: Level, again: Level
) -> None:
    rig.owner().attachments.attach("g1", GOOD, level=level)
    before = stored(rig)
    with pytest.raises(Refused, match="not qcow2"):
        rig.owner().attachments.attach(
            "g1", {**GOOD, "data": {**GOOD["data"], "format": "qcow2"}}, level=again
        )
    assert stored(rig) == before
    assert rig.owner().attachments.sweep() == []
    assert rig.owner().attachments.list()[0].trouble is None


def test_a_refused_connection_is_not_tried_by_a_dry_run_either(rig: Rig) -> None:
    rig.owner().attachments.attach("g1", GOOD)
    with pytest.raises(Refused, match="not qcow2"):
        rig.owner().attachments.attach(
            "g1", connection(volume_id="a", format="qcow2"), dry_run=True
        )


@pytest.mark.parametrize("plugged", ["live", "defined"])
def test_the_format_agrees_with_the_disk_that_is_plugged(rig: Rig, plugged: str) -> None:
    rig.owner().attachments.attach("g1", GOOD)
    before = stored(rig)
    toy = rig.world.guests[GuestId("g1")]
    getattr(toy, "defined" if plugged == "live" else "live").clear()
    # What the file begins with says qcow2 now, as its guest wrote that to a raw disk.
    rig.world.formats[f"{S1}/a"] = "qcow2"
    for dry_run in (True, False):
        with pytest.raises(Refused, match="disk of this volume is raw, not qcow2"):
            rig.owner().attachments.attach(
                "g1", connection(volume_id="a", format="qcow2"), timeout=0, dry_run=dry_run
            )
    assert stored(rig) == before


@pytest.mark.parametrize(
    ("options", "format", "why"),
    [
        (READONLY, "raw", "can be written to, and it is wanted read-only"),
        (DiskOptions(shared=True), "raw", "is not plugged as shared"),
        (DiskOptions(), "qcow2", "is raw, not qcow2"),
    ],
)
def test_a_disk_that_was_released_is_not_taken_for_another_kind_of_disk(
    rig: Rig, options: DiskOptions, format: Format, why: str
) -> None:
    rig.owner().attachments.attach("g1", GOOD)
    rig.records.release(stored(rig), f"{S1}/a")
    rig.world.formats.clear()
    with pytest.raises(NotOurs, match=why):
        rig.owner().attachments.attach(
            "g1", connection(volume_id="a", format=format), options=options, timeout=0
        )
    assert rig.world.guests[GuestId("g1")].live == {HERE: f"{S1}/a"}


def test_a_new_password_replaces_the_old_one_once_it_worked(rig: Rig) -> None:
    rig.world.passwords["s1"] = "old"
    rig.owner().attachments.attach("g1", connection(volume_id="a", password="old"))
    rig.world.passwords["s1"] = "new"
    rig.world.mounts.clear()  # the host came up again
    rig.world.guests[GuestId("g1")].running = False
    with pytest.raises(Failed, match=r"keeps the connection that it had: .*wrong password"):
        rig.owner().attachments.attach("g1", connection(volume_id="a", password="typo"), timeout=0)
    assert data_of(stored(rig))["password"] == "old"
    rig.owner().attachments.attach("g1", connection(volume_id="a", password="new"), timeout=0)
    assert data_of(stored(rig))["password"] == "new"
    assert S1 in rig.world.mounts


def test_a_broken_link_can_be_renewed_by_a_new_connection(rig: Rig) -> None:
    rig.owner().attachments.attach("g1", GOOD)
    rig.world.passwords["s1"] = "new"
    rig.world.dead.add("s1")
    g1 = rig.world.guests[GuestId("g1")]
    g1.running = False
    g1.live.clear()
    g1.lost.clear()
    rig.owner().attachments.attach(
        "g1", connection(volume_id="a", format="raw", password="new"), timeout=5
    )
    assert data_of(stored(rig))["password"] == "new"
    rig.check({("a", "g1"): Level.ATTACHED})


def test_what_the_hypervisor_refuses_brings_the_old_connection_back(rig: Rig) -> None:
    options = DiskOptions(bus="no such")
    rig.owner().attachments.attach("g1", GOOD, level=Level.CONNECTED, options=options)
    before = stored(rig)
    with pytest.raises(Refused, match="no bus"):
        rig.owner().attachments.attach(
            "g1", connection(volume_id="a", password="new"), options=options
        )
    after = stored(rig)
    assert (after.connection, after.want) == (before.connection, Level.CONNECTED)


def test_nova_too_keeps_its_connection(rig: Rig) -> None:
    guest = "00000000-0000-4000-8000-000000000001"
    rig.owner().attachments.attach(guest, GOOD, level=Level.CONNECTED, hands_off=True)
    before = stored(rig)
    with pytest.raises(Refused, match="not qcow2"):
        rig.owner().attachments.attach(
            guest,
            connection(volume_id="a", format="qcow2"),
            level=Level.CONNECTED,
            hands_off=True,
        )
    assert stored(rig) == before


def test_a_disk_that_its_guest_was_asked_for_is_not_told_as_attached(rig: Rig) -> None:
    """A guest that is suspended lets it go when it goes on."""
    rig.owner().attachments.attach("g1", GOOD)
    g1 = rig.world.guests[GuestId("g1")]
    g1.deaf = True
    with pytest.raises(Failed, match="has not let go"):
        rig.owner().attachments.detach("g1", "a", timeout=0.2)
    assert not g1.defined
    assert g1.live
    with pytest.raises(Failed, match="not yet gone from g1") as refused:
        rig.owner().attachments.attach("g1", GOOD, timeout=0.2)
    assert "can be attached when it is gone" in refused.value.hint
    assert not g1.defined
    g1.deaf, g1.live = False, {}
    rig.owner().attachments.attach("g1", GOOD)
    rig.check({("a", "g1"): Level.ATTACHED})


def test_a_detach_that_never_reached_the_guest_is_taken_back(rig: Rig) -> None:
    rig.owner().attachments.attach("g1", GOOD)
    (row,) = rig.records.all()
    rig.records.put(replace(row, want=Level.ABSENT))
    rig.world.guests[GuestId("g1")].deaf = True
    rig.owner().attachments.attach("g1", GOOD)
    rig.check({("a", "g1"): Level.ATTACHED})
