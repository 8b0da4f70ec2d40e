"""HyperScale volumes of a real cloud, on hosts whose /dev differ: moved live."""

from __future__ import annotations

import subprocess

from conftest import Scene

from lab.cloud.compute import ComputeHost, wait
from lab.cloud.server import Server, Volume


def has_device(host: ComputeHost, volume: Volume) -> bool:
    """Whether the volume's device is in that host's /dev."""
    words = [*host.node.enter(), "test", "-b", f"/dev/{volume.id[:31]}"]
    return subprocess.run(words, check=False).returncode == 0


def is_on(scene: Scene, server: Server, data: Volume, host: ComputeHost) -> bool:
    """Whether the server, and the device, is there and nowhere else."""
    here = server.disks(host).get(data.id) == f"/dev/{data.id[:31]}"
    others = [each for each in scene.cloud.hosts if each is not host and each.node.has_power]
    wait(lambda: not any(has_device(each, data) for each in others), "its device is there alone")
    return here and has_device(host, data) and not any(server.disks(each) for each in others)


def test_attached_and_migrated_live(scene: Scene) -> None:
    data = scene.volume(volume_type="hyperscale")
    server = scene.server(at=scene.one)
    server.attach(data)
    assert is_on(scene, server, data, scene.one)
    for target in (scene.two, scene.one):
        server.act("os-migrateLive", {"host": target.name, "block_migration": "auto"})
        wait(lambda to=target: server.host is to, "the server moves", 240)
        server.becomes("ACTIVE")
        assert is_on(scene, server, data, target)
    server.detach(data)
    assert not has_device(scene.one, data)
