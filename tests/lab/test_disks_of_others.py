"""Disks that others plugged, and mark as we do: real libvirt keeps everybody's aliases."""

from __future__ import annotations

from typing import Any

import pytest
from libvirt_rig import CONFIG
from scene import Scene, findings

ROOT = """
<disk type='file' device='disk'><driver name='qemu' type='raw'/>
<source file='{path}'/><target dev='vda' bus='virtio'/>
<serial>{id}</serial><alias name='ua-{id}'/></disk>
"""
DISC = """
<disk type='file' device='cdrom'><driver name='qemu' type='raw'/>
<source file='{path}'/><target dev='sda' bus='sata'/><readonly/>
<serial>{id}</serial><alias name='ua-{id}'/></disk>
"""
WITHOUT_SERIAL = """
<disk type='file' device='disk'><driver name='qemu' type='raw'/>
<source file='{path}'/><target dev='vda' bus='virtio'/><alias name='ua-{id}'/></disk>
"""


@pytest.mark.parametrize("xml", [ROOT, DISC, WITHOUT_SERIAL])
def test_what_others_mark_as_we_do_is_neither_told_nor_taken(
    scene: Scene, stopped: Any, xml: str
) -> None:
    """Nova, oVirt and KubeVirt choose aliases too; Nova's disks bear the serial as well."""
    theirs, ours = scene.volume(), scene.volume()
    path = scene.directory / "theirs.raw"
    path.write_bytes(bytes(1 << 20))
    stopped.attachDeviceFlags(xml.format(path=path, id=theirs.id), CONFIG)
    before = stopped.XMLDesc(2)
    assert findings(scene) == {}
    assert scene.moorline("repair", "--disks", "--boot-disks").stdout == "nothing to repair\n"
    like_ours = xml is not WITHOUT_SERIAL
    scene.detach(stopped.name(), theirs, code=7)
    for guest in ((), ("--guest", stopped.name())):
        wait = ("wait", theirs.id, "--for", "detached", *guest)
        assert f"of {stopped.name()} all the same" in scene.moorline(*wait, code=7).stderr
    refused = scene.attach(stopped.name(), theirs, code=3 if like_ours else 7).stderr
    why = "no record of having plugged it" if like_ours else f"with the alias ua-{theirs.id}"
    assert why in refused
    if not like_ours:
        scene.detach(stopped.name(), theirs, code=7)  # the attachment goes, the disk stays
    assert scene.attachments() == {}
    scene.attach(stopped.name(), theirs, "--level", "connected")
    scene.moorline("sweep")
    assert stopped.XMLDesc(2) == before
    scene.detach(stopped.name(), theirs, code=7)
    scene.attach(stopped.name(), ours)
    scene.moorline("release", stopped.name(), ours.id)
    assert set(findings(scene)) == {"unwanted-disk", "unmanaged-disk"}
    words = [] if xml is not DISC else ["--boot-disks"]  # without theirs it is the only one
    assert "detach" in scene.moorline("repair", "--disks", *words).stdout
    assert stopped.XMLDesc(2) == before
    assert scene.is_clean()
