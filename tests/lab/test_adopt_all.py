"""A host whose disks others have plugged is taken over by one command, and given back by one."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree as ET

import pytest
from scene import Scene, Volume, findings, mount_table, small_guest

from lab.host import umount
from lab.virtuozzo.cluster import Virtuozzo

CONFIG, BOTH = 2, 3
"""VIR_DOMAIN_AFFECT_CONFIG; that and VIR_DOMAIN_AFFECT_LIVE."""
INACTIVE, UNSET = 2, 3
"""VIR_DOMAIN_XML_INACTIVE; the exit code of what must be configured first."""


class Host(NamedTuple):
    """Two guests with disks that Moorline never heard of, on shares that were mounted by hand."""

    stopped: Any
    running: Any
    by_virsh: Volume
    """Of the running guest, as Nova plugs it: with the mark."""
    on_vault: str
    """The serial of a disk on Virtuozzo."""
    local: Path

    def disks(self) -> list[str]:
        """What the definitions say of the disks, but for marks."""
        found = []
        for domain in (self.stopped, self.running):
            for disk in ET.fromstring(domain.XMLDesc(INACTIVE)).iterfind("devices/disk"):
                for name in ("alias", "serial"):
                    for element in disk.findall(name):
                        disk.remove(element)
                found.append(ET.tostring(disk, encoding="unicode").strip())
        return found


def plug(domain: Any, device: str, path: Path, flags: int, serial: str, *, mark: bool) -> None:
    named = f"<serial>{serial}</serial>" if serial else ""
    alias = f"<alias name='ua-{serial}'/>" if mark else ""
    domain.attachDeviceFlags(
        "<disk type='file' device='disk'><driver name='qemu' type='raw' cache='none'/>"
        f"<source file='{path}'/><target dev='{device}' bus='virtio'/>{named}{alias}</disk>",
        flags,
    )


@pytest.fixture
def host(scene: Scene, stopped: Any, libvirt_conn: Any, lab: Path) -> Iterator[Host]:
    virtuozzo = Virtuozzo(lab)
    cluster = virtuozzo.cluster("vault", servers=())
    on_vault = str(uuid.uuid4())
    cluster.disk(on_vault)
    quobyte, vault = scene.directory / "by-hand/quobyte", scene.directory / "by-hand/vault"
    for at in (quobyte, vault):
        at.mkdir(parents=True)
    subprocess.run(["mount.quobyte", scene.share.export, quobyte], check=True)
    owner = ("-u", "root", "-g", "root", "-m", "777")
    subprocess.run(["vstorage-mount", "-c", "vault", vault, *owner], check=True)
    local = scene.directory / "local.raw"
    local.write_bytes(bytes(1 << 20))
    by_virsh, marked = scene.volume(), scene.volume()
    try:
        with small_guest(libvirt_conn, "small2", running=True) as running:
            plug(running, "vdb", quobyte / by_virsh.file.name, BOTH, by_virsh.id, mark=True)
            plug(stopped, "vdb", quobyte / marked.file.name, CONFIG, marked.id, mark=True)
            plug(stopped, "vdc", vault / on_vault, CONFIG, on_vault, mark=False)
            plug(stopped, "vdd", local, CONFIG, "", mark=False)
            yield Host(stopped, running, by_virsh, on_vault, local)
    finally:
        umount(quobyte)
        umount(vault)
        virtuozzo.clear()


def outcomes(told: dict[str, Any]) -> dict[tuple[str, str], str]:
    return {(each["guest"], each["device"]): each["outcome"] for each in told["disks"]}


def test_a_host_is_switched_in_one_command_and_back(scene: Scene, host: Host) -> None:
    before, mounts = host.disks(), mount_table()
    live = host.running.XMLDesc(0)
    connection = json.loads(host.by_virsh.connection.read_text())
    mappings = scene.write(
        "mappings.json",
        [
            {
                "instance_uuid": host.running.UUIDString(),
                "volume_id": host.by_virsh.id,
                "connection_info": json.dumps(connection),
            },
            {"instance_uuid": str(uuid.uuid4()), "connection_info": json.dumps(connection)},
        ],
    )
    words = ["adopt", "--all", "--connections", str(mappings)]

    refused = scene.moorline(*words, code=UNSET)
    lines = refused.stdout.rpartition("[libvirt]\n")[2].splitlines()
    assert sorted(line.partition(" = ")[0] for line in lines) == [
        "quobyte_mounted",
        "vzstorage_mounted",
    ]
    assert scene.attachments() == {}
    config = scene.write("moorline.conf", "\n".join(["[libvirt]", *lines]))
    words += ["--config-file", str(config)]

    dry = scene.moorline.json(*words, "--dry-run")
    small1, small2 = host.stopped.name(), host.running.name()
    assert outcomes(dry) == {
        (small1, "vdb"): "due",
        (small1, "vdc"): "due",
        (small1, "vdd"): "left",
        (small2, "vdb"): "due",
    }
    assert scene.attachments() == {}
    assert "adopted" in scene.moorline(*words).stdout
    again = scene.moorline.json(*words, "--local")
    assert outcomes(again) == {
        (small1, "vdb"): "kept",
        (small1, "vdc"): "kept",
        (small1, "vdd"): "adopted",
        (small2, "vdb"): "kept",
    }
    assert again["settings"] == []
    assert set(outcomes(scene.moorline.json(*words, "--local")).values()) == {"kept"}

    named = ("--config-file", str(config))
    views = scene.moorline.json("list", *named)
    assert {view["seen"] for view in views} == {"attached"}
    assert {view["backend"] for view in views} == {"quobyte", "vzstorage", "local"}
    assert {host.by_virsh.id, host.on_vault} < {view["volume"] for view in views}
    scene.moorline("sweep", *named)
    assert (host.disks(), mount_table(), host.running.XMLDesc(0)) == (before, mounts, live)

    released = scene.moorline.json("release", "--all", *named)
    assert [each["outcome"] for each in released] == ["released"] * 4
    assert scene.attachments() == {}
    assert findings(scene).keys() <= {"unwanted-disk"}
    assert (host.disks(), mount_table(), host.running.XMLDesc(0)) == (before, mounts, live)
    assert scene.moorline.json("release", "--all", *named) == []
