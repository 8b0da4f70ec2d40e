"""A volume of Cinder's by name on a real libvirt: by a command, killed in between, and by an agent.

Cinder is the lab's stand-in; the share behind the volume is Quobyte's.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from libvirt_rig import until
from scene import Scene, disk, halves, small_guest

from lab.agent import Agent
from lab.cinder.server import Cloud, environment
from lab.cinder.server import Volume as CinderVolume


@pytest.fixture
def cloud(scene: Scene) -> Iterator[Cloud]:
    pytest.importorskip("openstack")
    with Cloud() as made:
        scene.moorline = replace(
            scene.moorline,
            environment={**scene.moorline.environment, **environment(made.url)},
        )
        yield made


def volume(scene: Scene, cloud: Cloud, name: str = "data") -> CinderVolume:
    """A volume of Cinder's on the scene's share."""
    share = scene.share
    path = share.disk(f"volume-{name}", 2 << 20)
    info = share.connection(name=path.name)
    flat = {**info["data"], "driver_volume_type": info["driver_volume_type"]}
    flat.pop("volume_id", None)
    return cloud.add(name, flat)


@pytest.fixture
def stopped(scene: Scene, libvirt_conn: Any) -> Iterator[Any]:
    """A guest that lets each disk go at once."""
    with small_guest(libvirt_conn, "small") as domain:
        yield domain


def test_attached_and_detached_by_name(scene: Scene, cloud: Cloud, stopped: Any) -> None:
    its = volume(scene, cloud)
    scene.moorline("attach", "small", "cinder:data")
    xml = disk(stopped, its.id, inactive=True)
    assert xml is not None
    assert xml.findtext("serial") == its.id
    [attachment] = cloud.of(its)
    assert (attachment.status, attachment.instance) == ("attached", stopped.UUIDString())
    assert attachment.connector is not None
    assert attachment.connector["ip"] == "127.0.0.1"
    found = scene.moorline.json("doctor", code=None)["findings"]
    assert not [each for each in found if each["check"].startswith("cinder")]
    scene.moorline("detach", "small", "cinder:data")
    assert (cloud.of(its), its.status) == ([], "available")
    assert halves(stopped, its.id) == (False, False)
    assert scene.is_clean()


@pytest.mark.parametrize("request_", ["POST attachments", "POST action"])
def test_killed_while_cinder_is_asked(
    scene: Scene, cloud: Cloud, stopped: Any, request_: str
) -> None:
    its = volume(scene, cloud)
    method, path = request_.split()
    cloud.misbehave(method, path, slow_seconds=60, after=True)
    running = scene.moorline.start("attach", "small", "cinder:data")
    until(lambda: any(call[0] == method and path in call[1] for call in cloud.calls))
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    scene.moorline("sweep", code=None)
    there = halves(stopped, its.id) == (False, True)
    assert [each.status for each in cloud.of(its)] == ["attached"] * there
    scene.moorline("attach", "small", "cinder:data")
    [attachment] = cloud.of(its)
    assert attachment.status == "attached"
    scene.moorline("detach", "small", its.id)
    assert (cloud.of(its), its.status) == ([], "available")
    assert scene.is_clean()


def test_an_agent_asks_with_its_own_credentials(scene: Scene, cloud: Cloud, stopped: Any) -> None:
    its = volume(scene, cloud)
    variables = {k: v for k, v in scene.moorline.environment.items() if not k.startswith("OS_")}
    bare = replace(scene.moorline, environment=variables)
    agent = Agent(scene.moorline, scene.directory / "log")
    try:
        bare("attach", "small", "cinder:data")
        assert [each.status for each in cloud.of(its)] == ["attached"]
        bare("detach", "small", its.id)
        assert (cloud.of(its), its.status) == ([], "available")
    finally:
        agent.stop()


def test_a_whole_host_is_adopted_by_its_serials(scene: Scene, cloud: Cloud, stopped: Any) -> None:
    its = volume(scene, cloud)
    scene.moorline("attach", "small", "cinder:data")
    scene.moorline("release", "small", its.id)
    before = dict(cloud.attachments)
    plan = scene.moorline("adopt", "--all", "--cinder", "--dry-run").stdout
    assert "due" in plan
    assert scene.moorline.json("list") == []
    scene.moorline("adopt", "--all", "--cinder")
    scene.moorline("adopt", "--all", "--cinder")
    assert cloud.attachments == before
    scene.moorline("detach", "small", its.id)
    assert (cloud.of(its), its.status) == ([], "available")
    assert scene.is_clean()
