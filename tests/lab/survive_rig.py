"""Guests that write all the time, and a share whose client dies under them."""

from __future__ import annotations

import os

import libvirt
import pytest
from libvirt_rig import until
from scene import Scene, kill_daemon

from lab.guest import Guest
from lab.writer import Writer

tried_here = pytest.mark.skipif(
    libvirt.getVersion() // 1000 != 9000,
    reason="disks are given their file anew with libvirt 9.0 alone: later ones have other nodes",
)
long = pytest.mark.skipif("MOORLINE_KILLS" not in os.environ, reason="`make survive` has it")
PAUSED_BY_ERROR, RUNS = [3, 5], 1


def demand_all(writer: Writer) -> int:
    """Every block holds what was written there last, and nothing failed; how many were."""
    assert writer.lost() == []
    assert writer.errors() == []
    return writer.written()


def attached(scene: Scene, guest: Guest, *buses: str) -> list[Writer]:
    writers = []
    for bus in buses:
        volume = scene.volume()
        scene.attach(guest.name, volume, "--bus", bus, "--on-error", "stop")
        writers.append(Writer(guest, volume))
        writers[-1].start()
    return writers


def goes_on(writers: list[Writer]) -> None:
    """Wait until each has written more."""
    before = [writer.written() for writer in writers]
    until(lambda: all(w.written() > n for w, n in zip(writers, before, strict=True)))


def die(scene: Scene, guest: Guest) -> None:
    """Kill the client while the guest writes; it is paused by that."""
    kill_daemon(scene.share)
    until(lambda: guest.domain.state() == PAUSED_BY_ERROR)
