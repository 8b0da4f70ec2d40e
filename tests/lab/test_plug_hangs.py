"""A share stops answering when libvirt has begun to open a file on it, for a guest that runs."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from libvirt_rig import LIVE, until
from scene import Scene

from lab.guest import Guest
from moorline import wiring
from moorline.errors import Failed
from moorline.model import Level

LIBVIRT_SECONDS = 30.0
"""The deadline of a call to libvirt: the list of all guests waits for it, once."""


@contextmanager
def hanging_plug(guest: Guest, path: Path) -> Iterator[threading.Thread]:
    """libvirtd opens *path*, and has the guest's lock until that returns."""
    import libvirt

    disk = ET.Element("disk", type="file", device="disk")
    ET.SubElement(disk, "driver", name="qemu", type="raw")
    ET.SubElement(disk, "source", file=str(path))
    ET.SubElement(disk, "target", dev="vdz", bus="virtio")
    xml = ET.tostring(disk, encoding="unicode")
    connection = libvirt.open("qemu:///system")

    def plug() -> None:
        with suppress(libvirt.libvirtError):
            connection.lookupByName(guest.name).attachDeviceFlags(xml, LIVE)

    thread = threading.Thread(target=plug)
    thread.start()
    time.sleep(1)
    assert thread.is_alive()
    yield thread
    thread.join(30)
    assert not thread.is_alive()
    with suppress(libvirt.libvirtError):
        connection.lookupByName(guest.name).detachDeviceFlags(xml, LIVE)
    connection.close()


def lists(answered: list[Any]) -> None:
    """`virsh list`, on a connection of its own."""
    import libvirt

    connection = libvirt.open("qemu:///system")
    answered.append(connection.listAllDomains())
    connection.close()


@pytest.mark.parametrize("end", ["it answers again", "its connection is ended"])
def test_libvirt_lists_nobody_and_who_knew_the_guests_goes_on(
    scene: Scene, guest: Guest, second_guest: Guest, stopped: Any, fusectl: None, end: str
) -> None:
    hung, well = scene.volume(), scene.share.cluster.volume("well")
    before, after = scene.volume(share=well), scene.volume(share=well)
    connections = [json.loads(each.connection.read_text()) for each in (hung, before, after)]
    settings = wiring.settings(state_dir=scene.moorline.state)
    with wiring.open_host(settings) as owner:
        attachments = owner.attachments
        attachments.attach(stopped.name(), connections[0], level=Level.CONNECTED)
        attachments.attach(second_guest.name, connections[1])
        at = scene.mount_point()
        scene.share.daemon(hang=True)
        with hanging_plug(guest, at / hung.file.name):
            answered: list[Any] = []
            asking = threading.Thread(target=lists, args=[answered])
            asking.start()
            begun = time.monotonic()
            attachments.attach(second_guest.name, connections[2], timeout=600)
            assert time.monotonic() - begun < 2 * LIBVIRT_SECONDS
            assert second_guest.wait_for(after.id)
            attachments.detach(second_guest.name, after.id)
            with pytest.raises(Failed, match="cannot be told whether a guest still uses"):
                attachments.detach(second_guest.name, before.id, timeout=3)  # the share stays
            assert second_guest.disks() == {}
            assert not answered
            if end == "it answers again":
                scene.share.daemon()
            else:
                # Who has something open on it cannot be told either.
                owner.maintenance.abort(str(at), force=True)
        asking.join(30)
        assert answered
        scene.share.daemon()
        until(lambda: attachments.sweep() == [], 60)
        attachments.detach(stopped.name(), hung.id)
    assert scene.is_clean()
