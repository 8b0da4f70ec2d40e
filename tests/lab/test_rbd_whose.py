"""Whose an image of Ceph is: who watches it, and who plugged it. `make test-rbd`."""

from __future__ import annotations

import base64
import json
from typing import Any

import test_rbd
from libvirt_rig import until
from scene import small_guest
from test_rbd import Scene

from lab.ceph.cluster import HOST
from lab.guest import Guest

ceph, path, scene = test_rbd.ceph, test_rbd.path, test_rbd.scene


def test_who_reads_watches_as_well(scene: Scene, guest: Guest) -> None:
    id = scene.volume()
    scene.attach(guest.name, id, "--read-only")
    guest.wait_for(id)
    assert len(scene.watchers(id)) == 1
    scene.moorline("detach", guest.name, id)
    assert scene.is_clean()


def test_who_is_started_waits_for_whoever_has_its_image(scene: Scene, stopped: Any) -> None:
    """By the hook, which asks no guest."""
    id = scene.volume()
    scene.attach(stopped.name(), id)
    run = ("hook", "run", "--timeout", "2")
    with scene.ceph.opened(f"vols/{id}"):
        until(lambda: scene.watchers(id))
        waits = scene.moorline(*run, stdin=stopped.XMLDesc(), code=5).stderr
        assert f"somebody else has volume {id} open: " in waits
    until(lambda: not scene.watchers(id))
    scene.moorline(*run, stdin=stopped.XMLDesc())
    scene.moorline("detach", stopped.name(), id)
    assert scene.is_clean()


def test_nobody_hides_behind_a_guest_that_has_it_in_its_definition(
    scene: Scene, guest: Guest
) -> None:
    """Somebody took the disk away from what runs, and then another host's guest got it."""
    id = scene.volume()
    scene.attach(guest.name, id)
    guest.write(id, "its own lock")
    (lock,) = json.loads(scene.ceph.admin("rbd", "lock", "ls", f"vols/{id}", "--format", "json"))
    assert lock["id"].startswith("auto ")
    guest.domain.detachDeviceAlias(f"ua-{id}", 1)
    until(lambda: not scene.watchers(id))
    with scene.ceph.opened(f"vols/{id}"):
        until(lambda: scene.watchers(id))
        waits = scene.attach(guest.name, id, "--timeout", "1", code=5)
        assert f"somebody else has rbd:vols/{id} open: " in waits
        assert not guest.disks()
    until(lambda: not scene.watchers(id))
    scene.attach(guest.name, id)
    guest.domain.detachDeviceAlias(f"ua-{id}", 2)
    scene.attach(guest.name, id)  # its own watcher and its own lock are nobody else's
    assert scene.seen() == {id: "attached"}
    scene.moorline("detach", guest.name, id)
    assert scene.is_clean()


def test_what_somebody_plugged_is_adopted(scene: Scene, libvirt_conn: Any) -> None:
    id = scene.volume()
    theirs = libvirt_conn.secretDefineXML(
        "<secret ephemeral='yes' private='yes'><usage type='ceph'><name>theirs</name></usage>"
        "</secret>"
    )
    theirs.setValue(base64.b64decode(scene.ceph.key))
    xml = (
        "<disk type='network' device='disk'><driver name='qemu' type='raw' cache='none'/>"
        f"<source protocol='rbd' name='vols/{id}'><host name='{HOST}' port='6789'/></source>"
        "<auth username='moor'><secret type='ceph' usage='theirs'/></auth>"
        f"<target dev='vdb' bus='virtio'/><serial>{id}</serial><alias name='ua-{id}'/></disk>"
    )
    try:
        with small_guest(libvirt_conn, "adopts1", running=True) as domain:
            domain.attachDeviceFlags(xml, 3)
            file = scene.write(id)
            assert scene.moorline.json("adopt", domain.name(), "--connection", str(file))[
                "steps"
            ] == ["adopt"]
            domain.destroy()
            domain.create()
            assert scene.seen() == {id: "attached"}
            domain.destroy()
            scene.moorline("detach", domain.name(), id)
            assert scene.is_clean()
    finally:
        theirs.undefine()
