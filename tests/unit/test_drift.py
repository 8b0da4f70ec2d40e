"""What a look tells: who needs a pass, for little."""

from __future__ import annotations

from moorline.core.locks import Locks
from moorline.core.reconciler import Reconciler
from moorline.loop.drift import DriftDetector
from moorline.model import GuestId, Level, Link, VolumeId
from moorline.ports.results import Trouble
from moorline.testing.toys import ToyExport, ToyGuest, ToyHypervisor, ToyShare
from tests.support.rig import Rig


class Share(ToyShare):
    looks = 0

    def inspect(self, c: ToyExport) -> Link:
        self.looks += 1
        return super().inspect(c)


def look(rig: Rig) -> tuple[DriftDetector, Share]:
    share, hypervisor = Share(rig.world), ToyHypervisor(rig.world)
    reconciler = Reconciler(rig.records, {"toy": share}, hypervisor, Locks())
    return DriftDetector(rig.records, reconciler, hypervisor), share


def volumes(rows: object) -> list[str]:
    return [row.key.volume for row in rows]  # type: ignore[attr-defined]


def test_whoever_is_as_wanted_needs_no_pass() -> None:
    rig = Rig("g1", "g2")
    rig.attachment("whole", "g1", Level.ATTACHED)
    rig.attachment("half", "g1", Level.ATTACHED)
    rig.attachment("none", "g2", Level.ATTACHED)
    rig.attachment("linked", "g2", Level.CONNECTED)
    rig.attachment("going", "g2", Level.ATTACHED)
    rig.attachment("going", "g2", Level.ABSENT)
    rig.world.mounts["/toy/s1"] = "s1"
    toy = rig.world.guests[GuestId("g1")]
    toy.live = {VolumeId("whole"): "/toy/s1/whole", VolumeId("half"): "/toy/s1/half"}
    toy.defined = {VolumeId("whole"): "/toy/s1/whole"}
    drift, _ = look(rig)
    found = drift.everywhere()
    assert (found.rows, volumes(found.due)) == (5, ["half", "going", "none"])
    assert volumes(drift.at(GuestId("g1"))) == ["half"]
    assert volumes(drift.links()) == []


def test_a_disk_that_is_another_is_no_disk_of_ours() -> None:
    rig = Rig("g1")
    rig.attachment("v", "g1", Level.ATTACHED)
    rig.world.mounts["/toy/s1"] = "s1"
    other = {VolumeId("v"): "/toy/s1/other"}
    rig.world.guests[GuestId("g1")] = ToyGuest("g1", live=dict(other), defined=dict(other))
    found = look(rig)[0].everywhere()
    assert (volumes(found.due), found.parked) == (["v"], 1)


def test_what_ails_a_link_is_counted_as_long_as_it_lasts() -> None:
    """Also where it was noted as an attachment's trouble before, and where the attachment goes."""
    rig = Rig("g1")
    rig.attachment("hangs", "g1", Level.ATTACHED)
    rig.attachment("going", "g1", Level.ATTACHED, share="s2")
    rig.attachment("going", "g1", Level.ABSENT, share="s2")
    rig.attachment("theirs", "g1", Level.CONNECTED, share="s3")
    rig.world.mounts.update({"/toy/s1": "s1", "/toy/s2": "s2", "/toy/s3": "theirs"})
    rig.world.hung.update({"s1", "s2"})
    drift, _ = look(rig)
    for _ in range(2):
        found = drift.everywhere()
        assert (found.links, found.parked) == ({"hung": 2, "foreign": 1}, 1)
        assert sorted(volumes(found.due)) == ["going", "hangs", "theirs"]
        for row in rig.records.all():
            rig.records.note(row, Trouble("", "uncertain", "it does not answer", 0.0))


def test_a_link_is_not_looked_at_where_it_is_known_to_be_waited_for() -> None:
    rig = Rig("g1")
    rig.attachment("v", "g1", Level.CONNECTED)
    drift, share = look(rig)
    assert volumes(drift.links()) == ["v"]
    assert share.looks == 1
    assert drift.links(lambda row: True) == []
    assert drift.at(GuestId("g1"), lambda row: True) == []
    assert share.looks == 1


def test_where_guests_cannot_be_looked_at_links_are() -> None:
    rig = Rig("g1")
    rig.attachment("v", "g1", Level.ATTACHED)
    rig.attachment("w", "g1", Level.ATTACHED, share="s2")
    rig.world.mounts["/toy/s1"] = "s1"
    rig.world.blind = True
    found = look(rig)[0].everywhere()
    assert volumes(found.due) == ["w"]
    assert found.error == "the hypervisor does not answer"
