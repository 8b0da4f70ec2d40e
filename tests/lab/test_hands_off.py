"""A guest whose owner plugs its disks, as Nova does, on real libvirt, with the loop running."""

from __future__ import annotations

import json
from typing import Any

from libvirt_rig import CONFIG, until
from loop import HEALED, running_loop
from scene import Scene, halves

from moorline.model import Level

DISK = """
<disk type='file' device='disk'>
  <driver name='qemu' type='raw' cache='none'/><source file='{path}'/>
  <target dev='vdb' bus='virtio'/><serial>{id}</serial><alias name='ua-{id}'/>
</disk>
"""


def test_its_link_goes_when_nothing_names_it_any_more(scene: Scene, stopped: Any) -> None:
    volume = scene.volume()
    connection = json.loads(volume.connection.read_text())
    guest = stopped.UUIDString()
    with running_loop(scene) as loop:
        seen = loop.moorline.attachments.attach(
            guest, connection, level=Level.CONNECTED, hands_off=True
        )
        assert seen.view.source is not None
        stopped.attachDeviceFlags(DISK.format(path=seen.view.source["path"], id=volume.id), CONFIG)
        loop.settles()
        assert halves(stopped, volume) == (False, True), "its disk is not ours to take"

        # Nova disconnects before it undefines: nothing may be pulled from under the guest.
        told = loop.moorline.attachments.detach(guest, volume.id, hands_off=True)
        assert told is not None
        assert "still names" in told.view.next
        assert halves(stopped, volume) == (False, True)
        assert len(scene.mounts()) == 1

        stopped.undefine()
        until(lambda: not scene.mounts() and not loop.moorline.attachments.list(), HEALED)
    assert scene.is_clean()
