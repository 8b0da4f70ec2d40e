"""HyperScale volumes of a real cloud, on hosts whose /dev differ: moved, extended, shared."""

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
        server.migrate_live(target)
        assert is_on(scene, server, data, target)
    server.detach(data)
    assert not has_device(scene.one, data)


def test_evacuated_and_the_dead_host_returns(scene: Scene) -> None:
    data = scene.volume(volume_type="hyperscale")
    server = scene.server(at=scene.two)
    server.attach(data)
    assert is_on(scene, server, data, scene.two)
    scene.evacuate(server)
    assert is_on(scene, server, data, scene.one)
    scene.revive(scene.two)
    assert is_on(scene, server, data, scene.one)
    server.detach(data)
    assert not has_device(scene.one, data)


def test_extended_under_its_server(scene: Scene) -> None:
    """Cinder extends it and tells Nova, which tells the guest."""
    data = scene.volume(volume_type="hyperscale")
    server = scene.server(at=scene.one)
    server.attach(data)
    path = server.disks()[data.id]
    assert server.size_of(path) == 1 << 30
    data.act("os-extend", {"new_size": 2})
    wait(lambda: server.size_of(path) == 2 << 30, "the guest is told")
    server.detach(data)
    assert not has_device(scene.one, data)


def test_shared_by_servers_on_two_hosts(scene: Scene) -> None:
    data = scene.volume(volume_type="shared")
    one, two = scene.server(at=scene.one), scene.server(at=scene.two)
    for server in (one, two):
        server.attach(data)
        wait(lambda its=server: data.id in its.disks(), "the guest has it")
    assert data.attachments() == sorted([one.id, two.id])
    one.detach(data)
    wait(lambda: not has_device(scene.one, data), "its device is gone where nobody needs it")
    assert data.id in two.disks()
    assert has_device(scene.two, data)
    two.detach(data)
    wait(lambda: data.status == "available", "nobody has it")
