"""Servers of a real cloud go from host to host, by a real libvirt; their volumes go with them."""

from __future__ import annotations

from conftest import Scene

from lab.cloud.compute import ComputeHost, wait
from lab.cloud.server import Server, Volume


def moved(server: Server, data: Volume, source: ComputeHost) -> None:
    """All is on another host than *source*, and nothing is left there."""
    there = server.host
    assert there is not source
    [boot] = (each for each in server.volumes() if each != data.id)
    assert set(server.disks(there)) == {boot, data.id}
    assert server.disks(source) == {}
    assert there.wanted() == {(server.id, boot), (server.id, data.id)}
    assert len(there.mounts()) == 1
    wait(lambda: not source.wanted(), f"{source.name} wants {source.wanted()}")
    wait(lambda: not source.mounts(), f"{source.name} has {source.mounts()}")
    assert data.attachments() == [server.id]


def test_live_migration_there_and_back(scene: Scene) -> None:
    data = scene.volume()
    server = scene.server(at=scene.one)
    server.attach(data)
    for source, target in ((scene.one, scene.two), (scene.two, scene.one)):
        server.migrate_live(target)
        moved(server, data, source)
    server.detach(data)
    assert data.attachments() == []


def test_cold_migration_reverted_and_confirmed(scene: Scene) -> None:
    data = scene.volume()
    server = scene.server(at=scene.one)
    server.attach(data)
    server.act("migrate")
    server.becomes("VERIFY_RESIZE")
    server.act("revertResize")
    server.becomes("ACTIVE")
    moved(server, data, scene.two)
    server.act("migrate")
    server.becomes("VERIFY_RESIZE")
    server.act("confirmResize")
    server.becomes("ACTIVE")
    moved(server, data, scene.one)


def test_resized_to_another_flavor(scene: Scene) -> None:
    data = scene.volume()
    server = scene.server(at=scene.one)
    server.attach(data)
    server.act("resize", {"flavorRef": "larger"})
    server.becomes("VERIFY_RESIZE")
    server.act("confirmResize")
    server.becomes("ACTIVE")
    moved(server, data, scene.one)
    assert server.told()["flavor"]["ram"] == 96


def test_shelved_and_unshelved(scene: Scene) -> None:
    data = scene.volume()
    server = scene.server(at=scene.one)
    server.attach(data)
    server.act("shelve")
    server.becomes("SHELVED_OFFLOADED")
    for each in scene.cloud.hosts:
        assert server.disks(each) == {}
        wait(lambda each=each: not each.wanted(), f"{each.name} wants {each.wanted()}")
        wait(lambda each=each: not each.mounts(), f"{each.name} has {each.mounts()}")
    server.act("unshelve", {"host": scene.two.name})
    server.becomes("ACTIVE")
    moved(server, data, scene.one)
