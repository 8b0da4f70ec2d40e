"""A guest that writes all the time outlives the death of its share's client: every acknowledged
block is there afterwards, and it saw no error."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import libvirt
import pytest
from libvirt_rig import until
from scene import Scene, Volume, daemons, kill_daemon

from lab.guest import Guest, pattern
from moorline.core.renewals import CLOCK_SKEW_SECONDS

pytestmark = pytest.mark.skipif(
    libvirt.getVersion() // 1000 != 9000,
    reason="disks are given their file anew with libvirt 9.0 alone: later ones have other nodes",
)
BLOCK, SLOTS = 65536, 16
KILLS = int(os.environ.get("MOORLINE_KILLS", "2"))
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


@pytest.fixture
def survivors(scene: Scene, guest: Guest, pool: Any) -> Iterator[Scene]:
    """The scene, of whose share it was said that its client writes through."""
    settings = scene.write(
        "moorline.conf", f"[libvirt]\nquobyte_share_writes_through = {scene.share.export}\n"
    )
    scene.moorline = replace(scene.moorline, after=("--config-file", str(settings)))
    yield scene
    with suppress(libvirt.libvirtError):  # the test had it removed
        if guest.domain.state()[0] != RUNS:
            pool.drop(guest.domain.connect())


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


def test_disks_of_both_buses_are_given_anew_under_a_guest_that_writes(
    survivors: Scene, guest: Guest
) -> None:
    writers = attached(survivors, guest, "virtio", "scsi")
    xml = guest.domain.XMLDesc()
    for _ in range(KILLS):
        goes_on(writers)
        die(survivors, guest)
        survivors.moorline("sweep")
        assert guest.domain.state()[0] == RUNS
        assert guest.domain.XMLDesc() == xml
    assert len(survivors.mounts()) == len(daemons(survivors.share)) == 1
    goes_on(writers)
    for writer in writers:
        assert writer.demand_all() > 10
        survivors.detach(guest.name, writer.volume)
    assert survivors.is_clean()


def test_the_command_that_renews_is_killed_at_any_time(survivors: Scene, guest: Guest) -> None:
    """What comes next goes on: the guest stops again if somebody resumes it in between."""
    (writer,) = attached(survivors, guest, "virtio")
    for delay in (0.5, 0.7, 0.9, 1.2):
        goes_on([writer])
        die(survivors, guest)
        command = survivors.moorline.start("sweep")
        time.sleep(delay)
        command.kill()
        command.communicate()
        with suppress(libvirt.libvirtError):  # it runs already
            guest.domain.resume()
        survivors.moorline("sweep", code=None)
        until(lambda: guest.domain.state()[0] == RUNS or survivors.moorline("sweep", code=None))
        until(lambda: guest.domain.state()[0] == RUNS)
    goes_on([writer])
    assert writer.demand_all() > 10
    survivors.detach(guest.name, writer.volume)
    assert survivors.is_clean()


def test_a_file_that_somebody_else_wrote_meanwhile_is_not_given(
    survivors: Scene, guest: Guest, pool: Any
) -> None:
    """Its inode number and its size are the same: without the check that write would be lost."""
    (writer,) = attached(survivors, guest, "virtio")
    goes_on([writer])
    die(survivors, guest)
    survivors.share.command(fail={"code": 1})
    survivors.moorline("sweep", code=None)
    survivors.share.command()
    time.sleep(CLOCK_SKEW_SECONDS + 0.5)
    with writer.volume.file.open("r+b") as file:
        file.write(b"of another host")
    survivors.moorline("sweep", code=None)
    assert guest.domain.state() == PAUSED_BY_ERROR
    (view,) = survivors.moorline.json("show", writer.volume.id)
    assert "was changed" in view["trouble"]["message"]
    assert "not-renewed" in survivors.moorline("doctor", code=10).stdout
    assert writer.volume.bytes(0, 15) == b"of another host"
    pool.drop(guest.domain.connect())
    survivors.detach(guest.name, writer.volume)
    assert survivors.is_clean()
