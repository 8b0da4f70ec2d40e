"""Hosts of a real cloud go over to the plug-in with their servers running, as docs/nova.md says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from conftest import Scene

from lab.cloud.compute import ComputeHost, wait

STOCK = "libvirt.LibvirtDriver"


@contextmanager
def restored(scene: Scene) -> Iterator[None]:
    """All hosts have the plug-in in the end, and mount shares where they did."""
    try:
        yield
    finally:
        scene.clear()
        for each in scene.cloud.hosts:
            restart(each)
        scene.cloud.wait_for_hosts()


def restart(host: ComputeHost, driver: str = "", *lines: str) -> None:
    host.configure(driver, *lines)
    host.kill("agent")
    host.start_agent()
    host.kill("nova-compute")
    host.start_compute()


def test_live_from_a_host_without_to_one_with_then_it_is_switched_and_back(scene: Scene) -> None:
    one, two = scene.one, scene.two
    with restored(scene):
        restart(one, STOCK)
        scene.cloud.wait_for_hosts()
        data = scene.volume()
        server = scene.server(at=one)
        server.attach(data)
        volumes = set(server.volumes())
        [novas] = one.mounts()
        assert novas.startswith("/run/nova/mnt/")
        assert one.wanted() == set()

        adopt = ("adopt", "--all", "--hands-off", "--connections", file_of(server.mappings(), one))
        [line] = one.moorline(*adopt, code=3)["settings"]
        assert line == f"quobyte_mount_points = {scene.cloud.share.export}={novas}"
        restart(one, STOCK, line)
        restart(two, "", line)
        scene.cloud.wait_for_hosts()

        server.migrate_live(two)
        assert two.wanted() == {(server.id, each) for each in volumes}
        assert (two.mounts(), one.mounts()) == ([novas], [])
        server.migrate_live(one)
        wait(lambda: not two.wanted(), "the host with the plug-in lets go")
        wait(lambda: not two.mounts(), "and unmounts")
        assert (one.mounts(), one.wanted()) == ([novas], set())

        adopt = (*adopt[:-1], file_of(server.mappings(), one))
        for outcome in ("adopted", "kept"):
            disks = one.moorline(*adopt)["disks"]
            assert {each["volume"]: each["outcome"] for each in disks} == dict.fromkeys(
                volumes, outcome
            )
        restart(one, "", line)
        scene.cloud.wait_for_hosts()
        assert one.mounts() == [novas]
        server.detach(data)
        assert one.wanted() == {(server.id, each) for each in volumes - {data.id}}
        server.migrate_live(two)
        wait(lambda: not one.wanted(), "it is gone")
        wait(lambda: not one.mounts(), "and unmounted after its last user")

        two.kill("nova-compute")  # the way back
        [released] = two.moorline("release", "--all")
        assert released["outcome"] == "released"
        two.configure(STOCK, line)
        two.start_compute()
        scene.cloud.wait_for_hosts()
        server.attach(data)
        assert set(server.disks()) == volumes
        assert (two.mounts(), two.wanted()) == ([novas], set())
        server.migrate_live(one)
        assert one.wanted() == {(server.id, each) for each in volumes}
        assert (one.mounts(), two.mounts()) == ([novas], [])


def file_of(mappings: list[dict[str, str]], host: ComputeHost) -> str:
    file = host.node.directory / "mappings.json"
    file.write_text(json.dumps(mappings))
    return str(file)
