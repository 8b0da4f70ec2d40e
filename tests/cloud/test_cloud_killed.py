"""The agent, nova-compute and a share's client die in the midst of what a real cloud does."""

from __future__ import annotations

from conftest import Scene

from lab.cloud.compute import wait


def test_agent_killed_while_a_volume_is_attached(scene: Scene) -> None:
    """nova-compute asks again once the agent is back; it comes within five seconds."""
    data = scene.volume()
    server = scene.server(at=scene.one)
    scene.cloud.share.command(delay=2)
    server.ask_to_attach(data)
    scene.one.kill("agent")
    scene.one.start_agent()
    wait(lambda: data.status == "in-use", "the volume is attached")
    assert scene.one.wanted() == {(server.id, each) for each in server.volumes()}
    server.detach(data)


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
