"""Guests that write all the time, and a share whose client dies under them."""

from __future__ import annotations

import os

import libvirt
import pytest
from libvirt_rig import until
from scene import Scene, Volume, kill_daemon

from lab.guest import Guest, pattern

tried_here = pytest.mark.skipif(
    libvirt.getVersion() // 1000 != 9000,
    reason="disks are given their file anew with libvirt 9.0 alone: later ones have other nodes",
)
long = pytest.mark.skipif("MOORLINE_KILLS" not in os.environ, reason="`make survive` has it")
BLOCK, SLOTS = 65536, 16
PAUSED_BY_ERROR, RUNS = [3, 5], 1


class Writer:
    """Writes numbered blocks in a guest, one after the other, and notes those that were stored."""

    def __init__(self, guest: Guest, volume: Volume) -> None:
        self.guest = guest
        self.volume = volume
        self.log = f"/tmp/{volume.id[:8]}"

    def start(self) -> None:
        device = self.guest.wait_for(self.volume.id)
        one = (
            f"yes $i | head -c {BLOCK} | dd of={device} bs=64k seek=$((i % {SLOTS}))"
            " iflag=fullblock oflag=direct conv=notrunc status=none 2>>$L.err"
        )
        note = "echo $i >>$L || echo $i >>$L.err"
        loop = f"while [ ! -e $L.stop ]; do {one} && {note}; i=$((i+1)); done"
        self.guest.agent.check(
            f"mkdir -p /tmp; L={self.log}; i=0; ({loop}; touch $L.over) >/dev/null 2>&1 &"
        )

    def written(self) -> int:
        return int(self.guest.agent.check(f"cat {self.log} 2>/dev/null | wc -l")[0])

    def demand_all(self) -> int:
        """Every block holds what was written there last, and nothing failed; how many were."""
        self.guest.agent.check(
            f"touch {self.log}.stop; while [ ! -e {self.log}.over ]; do sleep 0.1; done"
        )
        assert self.guest.agent.run(f"cat {self.log}.err").lines in ([], [""])
        numbers = [int(n) for n in self.guest.agent.check(f"tail -n {SLOTS} {self.log}")]
        for number in numbers:
            found = self.volume.bytes((number % SLOTS) * BLOCK, BLOCK)
            assert found == pattern(str(number)), f"block {number} is not there"
        return numbers[-1] + 1


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
