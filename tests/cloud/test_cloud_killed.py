"""The agent, nova-compute and a share's client die in the midst of what a real cloud does."""

from __future__ import annotations

import pytest
from conftest import Scene

from lab.cloud.compute import wait


def test_agent_killed_while_a_volume_is_attached(scene: Scene) -> None:
    """nova-compute asks again once the agent is back; it comes within five seconds."""
    data = scene.volume()
    server = scene.server(at=scene.one)
    scene.cloud.share.daemon(delay=0.5)  # each look at it
    server.ask_to_attach(data)
    wait(lambda: (server.id, data.id) in scene.one.wanted(), "the agent is asked for it")
    scene.one.kill("agent")
    scene.one.start_agent()
    scene.cloud.share.daemon()
    wait(lambda: data.status == "in-use", "the volume is attached")
    assert scene.one.wanted() == {(server.id, each) for each in server.volumes()}
    server.detach(data)


def test_agent_killed_while_a_server_comes_live(scene: Scene) -> None:
    """That of the destination; nova-compute there asks again once it is back."""
    server = scene.server(at=scene.one)
    scene.cloud.share.daemon(delay=0.5)  # each look at it
    server.ask_to_migrate_live(scene.two)
    wait(scene.two.wanted, "the agent is asked for it")
    scene.two.kill("agent")
    assert server.disks(scene.two) == {}
    scene.two.start_agent()
    scene.cloud.share.daemon()
    wait(lambda: server.host is scene.two, "the server moves", 240)
    server.becomes("ACTIVE")
    assert set(server.disks(scene.two)) == set(server.volumes())
    wait(lambda: not scene.one.wanted(), "the source lets go")
    wait(lambda: not scene.one.mounts(), "and unmounts")


@pytest.mark.parametrize("deleted", ["while it is away", "when it is back"])
def test_nova_compute_killed_while_a_volume_is_attached(scene: Scene, deleted: str) -> None:
    """Nova does not know then how the volume is connected, and disconnects nothing."""
    data = scene.volume()
    server = scene.server(at=scene.one)
    scene.cloud.share.daemon(delay=0.5)  # each look at it
    server.ask_to_attach(data)
    wait(lambda: (server.id, data.id) in scene.one.wanted(), "the agent is asked for it")
    scene.one.kill("nova-compute")
    scene.cloud.share.daemon()
    assert data.status != "in-use"
    if deleted == "while it is away":
        server.ask_to_be_deleted()
    scene.one.start_compute()
    scene.cloud.wait_for_hosts()
    server.delete()
    wait(lambda: not scene.one.wanted(), "what nobody needs is let go", 60)
    wait(lambda: data.status == "available", "the volume is free")


def test_nova_compute_killed_while_the_agent_is_away(scene: Scene) -> None:
    """What a server that was deleted had is let go when both are back."""
    server = scene.server(at=scene.one)
    scene.one.kill("agent")
    server.delete()
    scene.one.kill("nova-compute")
    assert scene.one.mounts()
    scene.one.start_agent()
    assert scene.one.wanted()
    scene.one.start_compute()
    scene.cloud.wait_for_hosts()
    wait(lambda: not scene.one.wanted(), "what nobody needs is let go")


def test_client_of_the_share_killed(scene: Scene) -> None:
    """The server can be deleted, and the next one has the share anew."""
    server = scene.server(at=scene.one)
    scene.one.kill_client(scene.cloud.share.export)
    server.delete()
    again = scene.server(at=scene.one)
    assert set(again.disks()) == set(again.volumes())
    assert len(scene.one.mounts()) == 1
