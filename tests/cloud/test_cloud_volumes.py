"""Servers of a real cloud boot from volumes that Moorline connects, and have them attached."""

from __future__ import annotations

from conftest import Scene


def test_boot_attach_detach_and_delete(scene: Scene) -> None:
    data = scene.volume()
    server = scene.server(at=scene.one)
    [boot] = server.volumes()
    assert server.disks()[boot].endswith(f"/volume-{boot}")
    assert server.disks()[boot].startswith("/var/lib/moorline/mnt/")
    assert scene.one.wanted() == {(server.id, boot)}
    assert len(scene.one.mounts()) == 1
    assert scene.two.mounts() == []

    server.attach(data)
    assert set(server.disks()) == {boot, data.id}
    assert scene.one.wanted() == {(server.id, boot), (server.id, data.id)}
    assert len(scene.one.mounts()) == 1
    assert data.attachments() == [server.id]

    server.detach(data)
    assert set(server.disks()) == {boot}
    assert (data.attachments(), data.status) == ([], "available")
    assert scene.one.wanted() == {(server.id, boot)}
