"""Kill the owner at every effect of histories of a server's disk; the server goes away, too."""

from __future__ import annotations

import json

import pytest

from moorline.backends.nbd import NOBODYS, Nbd
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

URL = "nbd://filer/one"
STORIES = [
    (Level.ATTACHED, Level.ABSENT, Level.ATTACHED),
    (Level.CONNECTED, Level.ATTACHED, Level.ABSENT),
]
EFFECTS = range(14)


class NbdRig(Rig):
    """A guest, and a server that has one export."""

    def __init__(self) -> None:
        super().__init__("g1")
        self.server = "answers"
        self.backend = Nbd(ToyHost({"nbdinfo": self._nbdinfo}))

    def reconciler(self) -> Reconciler:
        hypervisor = ToyHypervisor(self.world)
        return Reconciler(self.records, {"nbd": self.backend}, hypervisor, Locks(patience=1.0))

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
            Attachment(*(key, "nbd", Secret(connection), link, URL, level, "g1"), revision=revision)
        )

    def has(self, level: Level) -> None:
        """Assert that just what is wanted is there."""
        toy = self.world.guests[GuestId("g1")]
        attached = [disks.get(VolumeId("v")) for disks in (toy.live, toy.defined)]
        expected = "nbd://filer:10809/one" if level is Level.ATTACHED else None
        assert attached == [expected, expected]
        assert bool(self.records.all()) == (level > Level.ABSENT)

    def _nbdinfo(self, host: ToyHost, command: Command) -> Output:
        if self.server == "hangs":
            raise Uncertain("nbdinfo did not end")
        if self.server == "is away":
            raise Failed("nbdinfo exited 1: Connection refused")
        if NOBODYS in command.argv[-1]:
            raise Failed("nbdinfo exited 1: No such file or directory for export: x")
        told = {"export-size": 1 << 20, "is_read_only": False}
        return Output(json.dumps({"exports": [told]}), "")


@pytest.mark.parametrize("server", ["answers", "hangs", "is away"])
@pytest.mark.parametrize("fault", list(Fault), ids=lambda fault: fault.name)
def test_what_is_wanted_comes_about(fault: Fault, server: str) -> None:
    struck = 0
    for story in STORIES:
        for at in EFFECTS:
            rig = NbdRig()
            rig.world.faults.plan((at, fault))
            for number, level in enumerate(story):
                rig.server = server if number == 1 else "answers"
                rig.survive(lambda to=level, r=rig: r.want(to))
                for _ in range(8):
                    rig.survive(lambda r=rig: r._sweep([]))
                    rig.world.tick()
            rig.world.faults.plan()
            rig.server = "answers"
            rig.want(story[-1])
            rig.settle()
            rig.has(story[-1])
            struck += rig.world.faults.struck
            if not rig.world.faults.struck:
                break  # the history has fewer effects than that
    assert struck


def test_a_server_that_does_not_answer_gives_no_guest_anything() -> None:
    for server in ("hangs", "is away"):
        rig = NbdRig()
        rig.server = server
        rig.want(Level.ATTACHED)
        for _ in range(8):
            rig._sweep([])
        rig.world.faults.plan()
        assert not rig.world.guests[GuestId("g1")].live
        rig.server = "answers"
        rig.settle()
        rig.has(Level.ATTACHED)
        rig.server = server
        rig.want(Level.ABSENT)  # what goes needs no answer
        rig.settle()
        rig.has(Level.ABSENT)
