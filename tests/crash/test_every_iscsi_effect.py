"""Kill the owner at every effect of histories of a LUN; its password is lost on the way, too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from moorline.backends.iscsi_qemu import IscsiQemu
from moorline.core.locks import Locks
from moorline.core.reconciler import Reconciler
from moorline.errors import Failed, Uncertain
from moorline.model import Attachment, GuestId, Key, Level, VolumeId
from moorline.ports import Call
from moorline.secret import Secret
from moorline.testing.faults import Fault
from moorline.testing.toy_host import ToyHost
from moorline.testing.toys import ToyHypervisor
from tests.support.rig import Rig

CONNECTION = {
    "driver_volume_type": "iscsi_qemu",
    "data": {
        "target_portal": "filer:3260",
        "target_iqn": "iqn.2026-01.lab:one",
        "target_lun": 1,
        "auth_method": "CHAP",
        "auth_username": "moor",
        "auth_password": "twelve-chars-xx",
    },
}
OF = GuestId("g1"), VolumeId("v")
STORIES = [
    (Level.ATTACHED, Level.ABSENT, Level.ATTACHED),
    (Level.ATTACHED, Level.ATTACHED, Level.ABSENT),
]
EFFECTS = range(16)


class LunRig(Rig):
    """A guest, and a target that has one LUN."""

    def __init__(self) -> None:
        super().__init__("g1")
        self.target = "answers"
        self.backend = IscsiQemu(ToyHost(answers=self._answer))

    def reconciler(self) -> Reconciler:
        hypervisor = ToyHypervisor(self.world)
        backends = {"iscsi_qemu": self.backend}
        return Reconciler(self.records, backends, hypervisor, Locks(patience=1.0))

    def want(self, level: Level) -> None:
        """Record what is wanted, as the façade would, without acting on it."""
        key = Key("h1", VolumeId("v"), GuestId("g1"))
        before = self.records.get(key)
        if before is None and level is Level.ABSENT:
            return
        link = self.backend.link_name(self.backend.parse(CONNECTION))
        revision = before.revision if before else 0
        row = (key, "iscsi_qemu", Secret(CONNECTION), link, "lun", level, "g1")
        self.records.put(Attachment(*row, revision=revision))

    def lose(self) -> None:
        """libvirtd is restarted."""
        self.world.logins = dict.fromkeys(self.world.logins)

    def has(self, level: Level) -> None:
        """Assert that just what is wanted is there, and what it can be opened with again."""
        toy = self.world.guests[GuestId("g1")]
        attached = [disks.get(VolumeId("v")) for disks in (toy.live, toy.defined)]
        expected = "iscsi:iqn.2026-01.lab:one/1" if level is Level.ATTACHED else None
        assert attached == [expected, expected]
        assert bool(self.records.all()) == (level > Level.ABSENT)
        assert bool(self.world.logins.get(OF)) == (level is Level.ATTACHED)

    def _answer(self, call: Call) -> Mapping[str, Any]:
        if self.target == "hangs":
            raise Uncertain("the target did not answer")
        if self.target == "is away":
            raise Failed("the target cannot be reached")
        return {"bytes": 1 << 20, "ids": [], "reserved": False}


@pytest.mark.parametrize("lost", [False, True], ids=["kept", "lost on the way"])
@pytest.mark.parametrize("target", ["answers", "hangs", "is away"])
@pytest.mark.parametrize("fault", list(Fault), ids=lambda fault: fault.name)
def test_what_is_wanted_comes_about(fault: Fault, target: str, lost: bool) -> None:
    struck = 0
    for story in STORIES:
        for at in EFFECTS:
            rig = LunRig()
            rig.world.faults.plan((at, fault))
            for number, level in enumerate(story):
                rig.target = target if number == 1 else "answers"
                rig.survive(lambda to=level, r=rig: r.want(to))
                for _ in range(8):
                    rig.survive(lambda r=rig: r._sweep([]))
                    rig.world.tick()
                if lost:
                    rig.lose()
            rig.world.faults.plan()
            rig.target = "answers"
            rig.want(story[-1])
            rig.settle()
            rig.has(story[-1])
            struck += rig.world.faults.struck
            if not rig.world.faults.struck:
                break  # the history has fewer effects than that
    assert struck


def test_a_lost_password_is_given_anew_while_the_target_hangs() -> None:
    rig = LunRig()
    rig.world.faults.plan()
    rig.want(Level.ATTACHED)
    rig.settle()
    rig.lose()
    rig.target = "hangs"
    rig.settle()
    rig.has(Level.ATTACHED)
