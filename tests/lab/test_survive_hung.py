"""A guest outlives a share that hangs: aborted by a person, its client killed, mounted anew."""

from __future__ import annotations

import os
import signal

from libvirt_rig import until
from scene import Scene, daemons
from survive_rig import PAUSED_BY_ERROR, RUNS, attached, demand_all, goes_on, long, tried_here

from lab.guest import Guest

pytestmark = tried_here
SURE = ("--i-know-that-the-storage-writes-nothing-more", "the lab's storage is a directory")


def test_a_guest_goes_on_after_its_share_was_aborted(
    survivors: Scene, guest: Guest, fusectl: None
) -> None:
    scene = survivors
    writers = attached(scene, guest, "virtio", "scsi")
    xml, at = guest.domain.XMLDesc(), str(scene.mount_point())
    goes_on(writers)
    assert "does not hang" in scene.moorline("abort", at, "--renew", *SURE, code=3).stderr
    (client,) = daemons(scene.share)
    os.kill(client, signal.SIGSTOP)  # the next one does not hang
    due = scene.moorline.json("abort", at, "--renew", "--dry-run")
    assert (due["done"], len(due["renewed"])) == (False, 2)
    assert due["killed"][0].endswith(f"({client})")
    assert daemons(scene.share) == [client]
    refused = scene.moorline("abort", at, "--renew", code=3)
    assert "may still write" in refused.stderr
    made = scene.moorline.json("abort", at, "--renew", *SURE)
    assert (made["done"], made["problem"], len(made["renewed"])) == (True, "", 2)
    assert guest.domain.state()[0] == RUNS
    assert guest.domain.XMLDesc() == xml
    assert client not in daemons(scene.share)
    goes_on(writers)
    for writer in writers:
        assert demand_all(writer) > 10
        scene.detach(guest.name, writer.volume)
    assert "storage is a directory" in scene.moorline("events").stdout
    assert scene.is_clean()


@long
def test_a_guest_that_would_see_errors_keeps_the_share(
    survivors: Scene, guest: Guest, fusectl: None
) -> None:
    scene = survivors
    volume = scene.volume()
    scene.attach(guest.name, volume)
    at = str(scene.mount_point())
    scene.share.daemon(hang=True)
    refused = scene.moorline("abort", at, "--renew", *SURE, code=3)
    assert "is told to the guest" in refused.stderr
    assert guest.name in refused.stderr
    scene.share.daemon()
    until(lambda: guest.domain.state()[0] == RUNS)
    assert guest.domain.state() != PAUSED_BY_ERROR
    scene.detach(guest.name, volume)
    assert scene.is_clean()
