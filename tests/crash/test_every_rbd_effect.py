"""Kill the owner at every effect of histories of an image of Ceph; the cluster goes away, too."""

from __future__ import annotations

import json

import pytest

from moorline.backends.rbd import Rbd
from moorline.core.locks import Locks
from moorline.core.reconciler import Reconciler
from moorline.errors import Failed, Uncertain
from moorline.model import Attachment, GuestId, Key, Level, VolumeId
from moorline.ports import Command, Output
from moorline.secret import Secret
from moorline.testing.faults import Fault
from moorline.testing.toy_host import ToyHost
from moorline.testing.toys import ToyHypervisor
from tests.support.rig import Rig

URL = "rbd://mon/vols/v1"
KNOWN = "rbd:vols/v1"
STRANGER = {"address": "10.0.0.7:0/1", "client": 7, "cookie": 1}
STORIES = [
    (Level.ATTACHED, Level.ABSENT, Level.ATTACHED),
    (Level.CONNECTED, Level.ATTACHED, Level.ABSENT),
]
EFFECTS = range(14)


class RbdRig(Rig):
    """A guest, and a cluster that has one image, which is open while the guest has it."""

    def __init__(self) -> None:
        super().__init__("g1")
        self.cluster = "answers"
        self.backend = Rbd(ToyHost({"rbd": self._rbd}))

    def reconciler(self) -> Reconciler:
        hypervisor = ToyHypervisor(self.world)
        return Reconciler(self.records, {"rbd": self.backend}, hypervisor, Locks(patience=1.0))

    def want(self, level: Level) -> None:
        """Record what is wanted, as the façade would, without acting on it."""
        key = Key("h1", VolumeId("v"), GuestId("g1"))
        before = self.records.get(key)
        if before is None and level is Level.ABSENT:
            return
        connection = self.backend.from_url(URL, None)
        link = self.backend.link_name(self.backend.parse(connection))
        revision = before.revision if before else 0
        self.records.put(
            Attachment(*(key, "rbd", Secret(connection), link, URL, level, "g1"), revision=revision)
        )

    def has(self, level: Level) -> None:
        """Assert that just what is wanted is there."""
        toy = self.world.guests[GuestId("g1")]
        attached = [disks.get(VolumeId("v")) for disks in (toy.live, toy.defined)]
        expected = KNOWN if level is Level.ATTACHED else None
        assert attached == [expected, expected]
        assert bool(self.records.all()) == (level > Level.ABSENT)

    def _rbd(self, host: ToyHost, command: Command) -> Output:
        if self.cluster == "hangs":
            raise Uncertain("rbd did not end")
        if self.cluster == "is away":
            raise Failed("rbd exited 110: rbd: couldn't connect to the cluster!")
        own = {"address": "127.0.0.1:0/1", "client": 1, "cookie": 1}
        mine = [own] if VolumeId("v") in self.world.guests[GuestId("g1")].live else []
        theirs = [STRANGER] if self.cluster == "is open elsewhere" else []
        told = {"info": {"size": 1 << 20}, "status": {"watchers": mine + theirs}, "lock": []}
        (verb,) = told.keys() & set(command.argv)
        return Output(json.dumps(told[verb]), "")


@pytest.mark.parametrize("cluster", ["answers", "hangs", "is away", "is open elsewhere"])
@pytest.mark.parametrize("fault", list(Fault), ids=lambda fault: fault.name)
def test_what_is_wanted_comes_about(fault: Fault, cluster: str) -> None:
    struck = 0
    for story in STORIES:
        for at in EFFECTS:
            rig = RbdRig()
            rig.world.faults.plan((at, fault))
            for number, level in enumerate(story):
                rig.cluster = cluster if number == 1 else "answers"
                rig.survive(lambda to=level, r=rig: r.want(to))
                for _ in range(8):
                    rig.survive(lambda r=rig: r._sweep([]))
                    rig.world.tick()
            rig.world.faults.plan()
            rig.cluster = "answers"
            rig.want(story[-1])
            rig.settle()
            rig.has(story[-1])
            struck += rig.world.faults.struck
            if not rig.world.faults.struck:
                break  # the history has fewer effects than that
    assert struck


@pytest.mark.parametrize("cluster", ["hangs", "is away", "is open elsewhere"])
def test_what_is_not_known_to_be_free_is_given_to_no_guest(cluster: str) -> None:
    rig = RbdRig()
    rig.cluster = cluster
    rig.want(Level.ATTACHED)
    for _ in range(8):
        rig._sweep([])
    rig.world.faults.plan()
    assert not rig.world.guests[GuestId("g1")].live
    rig.cluster = "answers"
    rig.settle()
    rig.has(Level.ATTACHED)
    rig.cluster = cluster
    rig.want(Level.ABSENT)  # what goes needs no answer
    rig.settle()
    rig.has(Level.ABSENT)
