"""Disks with a password are adopted: of whoever plugged them, or of a state that was lost."""

from __future__ import annotations

import shutil
from contextlib import closing
from typing import Any

import libvirt
import test_iscsi_qemu
from libvirt_rig import small_xml, until
from scene import gone_at_the_end, small_guest
from test_iscsi_qemu import Scene

from lab import host
from lab.tgt.target import PASSWORD, PORTAL, USER, iqn

tgt = test_iscsi_qemu.tgt
scene = test_iscsi_qemu.scene


def test_what_somebody_plugged_with_a_password_is_adopted(scene: Scene, libvirt_conn: Any) -> None:
    """It goes on naming the secret of whoever plugged it, who has it kept."""
    id = scene.volume()
    theirs = libvirt_conn.secretDefineXML(
        "<secret ephemeral='yes' private='yes'><usage type='iscsi'><target>theirs</target></usage>"
        "</secret>"
    )
    theirs.setValue(PASSWORD.encode())
    address, port = PORTAL.split(":")
    xml = (
        "<disk type='network' device='disk'><driver name='qemu' type='raw' cache='none'/>"
        f"<source protocol='iscsi' name='{iqn(id)}/1'><host name='{address}' port='{port}'/>"
        f"<auth username='{USER}'><secret type='iscsi' usage='theirs'/></auth></source>"
        f"<target dev='vdb' bus='virtio'/><serial>{id}</serial><alias name='ua-{id}'/></disk>"
    )
    try:
        with small_guest(libvirt_conn, "adopts1", running=True) as domain:
            domain.attachDeviceFlags(xml, 3)
            file = scene.write(id)
            words = ("adopt", domain.name(), "--connection", str(file))
            wrong = scene.write(id, auth_password="another-word")
            refused = scene.moorline(*words[:-1], str(wrong), code=3).stderr
            assert "lets nobody in" in refused
            assert scene.seen() == {}
            scene.write(id)
            assert scene.moorline.json(*words)["steps"] == ["adopt"]
            domain.destroy()
            domain.create()
            (row,) = scene.moorline.json("list")
            assert (row["seen"], row["next"]) == ("attached", "nothing")
            refused = scene.moorline("release", domain.name(), id, code=3).stderr
            assert "could not be started again" in refused
            domain.destroy()
            scene.moorline("detach", domain.name(), id)
            assert scene.is_clean()
            scene.attach(domain.name(), id)  # it is ours from now on
            assert len(scene.secrets()) == 1
            scene.moorline("detach", domain.name(), id)
            assert scene.is_clean()
    finally:
        theirs.undefine()


def test_what_a_lost_state_had_is_adopted_with_its_password(scene: Scene) -> None:
    id = scene.volume()
    with closing(libvirt.open("qemu:///system")) as virt:
        domain = virt.defineXML(small_xml("q35", 6, "virtio-scsi"))
        name, guest = domain.name(), domain.UUIDString()
        scene.attach(name, id)
    assert scene.moorline.state is not None
    shutil.rmtree(scene.moorline.state)
    host.kill_libvirtd()
    host.start_libvirtd()
    with closing(libvirt.open("qemu:///system")) as virt, gone_at_the_end(virt, guest):
        scene.moorline("adopt", name, "--connection", str(scene.write(id)))
        (row,) = scene.moorline.json("list")
        assert (row["seen"], row["next"]) == ("attached", "unlock")
        scene.moorline("start", name)
        until(lambda: scene.tgt.sessions(id))
        virt.lookupByName(name).destroy()
        scene.moorline("detach", name, id)
        assert not scene.seen()
        assert not virt.listAllSecrets()
