"""What a host of a fleet attached by a person's word: real etcd, real libvirt, two hosts."""

from __future__ import annotations

import uuid
from typing import Any

from fleet_rig import LabFleet
from libvirt_rig import until
from scene import Scene, halves, small_guest
from test_fleet_agent import REFUSED, WORD, guest, pair, there

__all__ = ["guest", "pair", "there"]


def test_what_a_host_attached_by_itself_is_given_to_nobody_else(
    pair: LabFleet, guest: Any, there: Any, scene: Scene
) -> None:
    with small_guest(there, "web02", running=True) as other:
        pair.wait_for_guest("web01", "one")
        pair.wait_for_guest("web02", "two")
        volume = scene.volume()
        same = ("--connection", str(volume.connection))
        pair.one.moorline("attach", "web01", *same, WORD, "the fleet is new, ticket 13")
        assert halves(guest, volume.id) == (True, True)
        claims = ("get", "--prefix", "/moorline/owners/own/", "--keys-only")
        until(lambda: volume.id in pair.cluster.control(*claims), 60)
        told = pair("attach", "web02", *same, code=REFUSED)
        assert "web01 on one has it" in told
        assert f"on one: moorline detach {guest.UUIDString()} {volume.id}" in told
        info = volume.share.connection(name=volume.file.name, volume_id=str(uuid.uuid4()))
        info["data"]["export"] = f"reg9.example,{info['data']['export']}"
        again = ("--connection", str(scene.write("again.json", info)))
        assert "the same storage is " in pair("attach", "web02", *again, code=REFUSED)
        assert halves(other, volume.id) == (False, False)
        guest.destroy()  # it has no system that would let go
        pair.one.moorline("detach", "web01", volume.id)
        until(lambda: volume.id not in pair.cluster.control(*claims), 60)
        pair("attach", "web02", *same)
        assert halves(other, volume.id) == (True, True)
