"""A guest that writes all the time outlives the death of its share's client: every acknowledged
block is there afterwards, and it saw no error."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import libvirt
from libvirt_rig import until
from scene import Scene, daemons
from survive_rig import (
    KILLS,
    PAUSED_BY_ERROR,
    RUNS,
    attached,
    demand_all,
    die,
    end,
    goes_on,
    renew,
    tried_here,
)

from lab.guest import Guest
from moorline.core.renewals import CLOCK_SKEW_SECONDS

pytestmark = tried_here


def test_disks_of_both_buses_are_given_anew_under_a_guest_that_writes(
    survivors: Scene, guest: Guest
) -> None:
    writers = attached(survivors, guest, "virtio", "scsi")
    for _ in range(KILLS):
        renew(survivors, guest, writers)
    assert len(survivors.mounts()) == len(daemons(survivors.share)) == 1
    end(survivors, guest, writers)


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
    assert demand_all(writer) > 10
    survivors.detach(guest.name, writer.volume)
    assert survivors.is_clean()


def test_a_file_that_somebody_else_wrote_meanwhile_is_not_given(
    survivors: Scene, guest: Guest, pool: Any
) -> None:
    """Its inode number and its size are the same: without the check that write would be lost."""
    (writer,) = attached(survivors, guest, "virtio")
    goes_on([writer])
    die(survivors, guest)
    said = f"{guest.name} is paused by an I/O error of vda on the dead share"
    assert said in survivors.moorline("list").stdout
    assert "paused-guest" in survivors.moorline("doctor", code=10).stdout
    assert "virsh" not in survivors.moorline("doctor", code=10).stdout
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
