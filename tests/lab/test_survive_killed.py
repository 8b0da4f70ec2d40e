"""The agent is killed before and after each change by which it gives a disk its file anew, on real
libvirt, QEMU and FUSE, while the guest writes; somebody lets the guest go on; another agent starts.
All of it is `make survive`'s.
"""

from __future__ import annotations

import fcntl
import signal
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import libvirt
import pytest
from libvirt_rig import until
from scene import Scene
from survive_rig import (
    PAUSED_BY_ERROR,
    RUNS,
    TRIED_HERE,
    attached,
    die,
    end,
    goes_on,
    long,
    tried_here,
)

from lab.agent import Agent
from lab.guest import Guest
from lab.writer import Writer
from moorline.core.renewals import CLOCK_SKEW_SECONDS
from moorline.testing.faults import Fault

pytestmark = [tried_here, long]
FORMATS = ("raw", "qcow2")
NOBODY_WRITES = (1, 201)
"""How many bytes, from which on, another QEMU has locked that lets nobody else write to a file
(RAW_LOCK_SHARED_BASE and BLK_PERM_WRITE of its source)."""
MORTAL = Path(__file__).with_name("mortal.py")
HELD = "qom-set moorline-hold"
NODES = [
    "blockdev-del libvirt-format",
    "blockdev-del libvirt-storage",
    "blockdev-add libvirt-storage",
    "blockdev-add libvirt-format",
]
CALLS = {
    # The file beneath a format QEMU opens by itself.
    "qcow2": ["blockdev-add moorline-hold", HELD, NODES[0], NODES[3], "qom-set libvirt-format"],
    "raw": ["blockdev-add moorline-hold", HELD, "qom-set libvirt-format"],
}
if any(tried.raw_is_bare for tried in TRIED_HERE):
    CALLS["raw"] = ["blockdev-add moorline-hold", HELD, *NODES[1:3], "qom-set libvirt-storage"]
CHANGES = {
    form: [
        *("record: death", "umount", "mount.quobyte", "record: file"),
        *calls,
        *("blockdev-del moorline-hold", "record: done", "record: let go", "resume", "record: over"),
    ]
    for form, calls in CALLS.items()
}
ALL = [
    (form, at, fault)
    for form, changes in CHANGES.items()
    for at in changes
    for fault in (Fault.KILL_BEFORE, Fault.KILL_AFTER)
]


def killed(scene: Scene, guest: Guest, form: str, at: str, fault: Fault) -> Writer:
    """The client dies under a guest that writes, and the agent while it sees to that."""
    (writer,) = attached(scene, guest, "virtio", form=form)
    log = scene.directory / "agent.log"
    mortal = replace(
        scene.moorline,
        before=(sys.executable, str(MORTAL)),
        environment={"MORTAL_AT": at, "MORTAL_FAULT": fault.name},
    )
    agent = Agent(mortal, log)
    goes_on([writer])
    die(scene, guest)
    assert agent.end() == -signal.SIGKILL, log.read_text()
    return writer


@pytest.mark.parametrize(
    ("form", "at", "fault"),
    ALL,
    ids=lambda part: getattr(part, "name", part),
)
def test_the_agent_is_killed(
    survivors: Scene, guest: Guest, form: str, at: str, fault: Fault
) -> None:
    writer = killed(survivors, guest, form, at, fault)
    with suppress(libvirt.libvirtError):  # it runs already
        guest.domain.resume()
    agent = Agent(survivors.moorline, survivors.directory / "agent.log")
    until(lambda: guest.domain.state()[0] == RUNS)
    goes_on([writer])
    # Before that, what the guest wrote since it was resumed is taken for another's.
    until(lambda: survivors.moorline.json("show", writer.volume.id)[0]["next"] == "nothing")
    die(survivors, guest)  # what is recorded of the death before must not count
    until(lambda: guest.domain.state()[0] == RUNS)
    goes_on([writer])
    agent.stop()
    end(survivors, guest, [writer], form)


@pytest.mark.parametrize("form", FORMATS)
def test_who_has_the_file_locked_is_waited_for(survivors: Scene, guest: Guest, form: str) -> None:
    """On the placeholder: whoever lets the guest go on meanwhile only makes it stop again."""
    writer = killed(survivors, guest, form, "mount.quobyte", Fault.KILL_AFTER)
    with (survivors.mount_point() / writer.volume.file.name).open("r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_SH, *NOBODY_WRITES)
        for _ in range(2):
            survivors.moorline("sweep", code=None)
            (view,) = survivors.moorline.json("show", writer.volume.id)
            assert '"write" lock' in view["trouble"]["message"]
            guest.domain.resume()
            until(lambda: guest.domain.state() == PAUSED_BY_ERROR)
    survivors.moorline("sweep")
    assert guest.domain.state()[0] == RUNS
    goes_on([writer])
    end(survivors, guest, [writer], form)


@pytest.mark.parametrize("at", [HELD, CALLS["raw"][-2], "record: done"])
def test_what_another_host_wrote_after_the_agent_was_killed_is_kept(
    survivors: Scene, guest: Guest, pool: Any, at: str
) -> None:
    """QEMU has the file open already: without the checks that are made once more the guest would go
    on with it."""
    writer = killed(survivors, guest, "raw", at, Fault.KILL_AFTER)
    time.sleep(CLOCK_SKEW_SECONDS + 0.5)
    with writer.volume.file.open("r+b") as file:
        file.write(b"of another host")
    survivors.moorline("sweep", code=5)
    assert guest.domain.state() == PAUSED_BY_ERROR
    (view,) = survivors.moorline.json("show", writer.volume.id)
    assert "was changed" in view["trouble"]["message"]
    if at != "record: done":
        guest.domain.resume()  # who does so makes it stop again
        until(lambda: guest.domain.state() == PAUSED_BY_ERROR)
    assert writer.volume.bytes(0, 15) == b"of another host"
    pool.drop(guest.domain.connect())
    survivors.detach(guest.name, writer.volume)
    assert survivors.is_clean()
