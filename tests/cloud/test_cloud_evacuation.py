"""A host of a real cloud dies, its servers are evacuated, and it comes back."""

from __future__ import annotations

from conftest import Scene


def test_evacuated_and_the_dead_host_returns(scene: Scene) -> None:
    data = scene.volume()
    server = scene.server(at=scene.two)
    server.attach(data)
    volumes = set(server.volumes())
    scene.evacuate(server)
    assert set(server.disks(scene.one)) == volumes
    assert scene.one.wanted() == {(server.id, each) for each in volumes}

    scene.revive(scene.two)
    assert server.disks(scene.two) == {}
    assert set(server.disks(scene.one)) == volumes
    assert data.attachments() == [server.id]
