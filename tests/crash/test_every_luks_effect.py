"""Kill the owner around every effect of LUKS volumes: neither a key nor a disk is left."""

from __future__ import annotations

import base64
import itertools
from functools import partial

import pytest

from moorline.model import GuestId, Level, VolumeId
from moorline.testing.faults import Fault
from tests.support.rig import Rig

WANTS = list(itertools.product((Level.ATTACHED, Level.CONNECTED, Level.ABSENT), repeat=2))
EFFECTS = range(16)
ENCRYPTION = {"provider": "luks", "key": base64.b64encode(b"right").decode()}
OF = GuestId("g1"), VolumeId("a")


@pytest.mark.parametrize("lost", [False, True], ids=["kept", "lost on the way"])
@pytest.mark.parametrize("fault", list(Fault), ids=lambda fault: fault.name)
def test_a_key_is_there_as_long_as_its_attachment(fault: Fault, lost: bool) -> None:
    struck = 0
    for story in WANTS:
        for at in EFFECTS:
            rig = Rig("g1")
            rig.world.opened_by["/toy/s1/a"] = b"right"
            rig.world.faults.plan((at, fault))
            for want in story:
                rig.survive(partial(rig.attachment, "a", "g1", want, encryption=ENCRYPTION))
                rig.settle()
                if lost:  # libvirtd was restarted
                    rig.world.keys.clear()
            rig.world.faults.plan()
            rig.attachment("a", "g1", story[-1], encryption=ENCRYPTION)
            rig.settle()
            rig.check({("a", "g1"): story[-1]})
            if story[-1] is Level.ATTACHED:
                assert rig.world.keys[OF].reveal() == b"right"
            elif story[-1] is Level.ABSENT:
                assert rig.world.keys == {}
            struck += rig.world.faults.struck
            if not rig.world.faults.struck:
                break
    assert struck > 30
