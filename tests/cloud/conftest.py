"""A whole small cloud, for all stories: `make test-cloud`."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lab import host
from lab.cloud.broker import PROGRAM
from lab.cloud.compute import ComputeHost, wait
from lab.cloud.server import Server, Volume
from lab.cloud.site import VENV, NovaCloud
from tests.support.missing import missing


@pytest.fixture(scope="session")
def cloud() -> Iterator[NovaCloud]:
    if not (VENV.name and host.inside()):
        pytest.skip("no cloud is installed here: run `make test-cloud`")
    if not PROGRAM.exists():
        missing("needs rabbitmq-server: `make test-cloud` installs it")
    import libvirt

    libvirt.registerErrorHandler(lambda *_: None, None)
    at = host.LAB / "cloud"
    at.mkdir(mode=0o755)
    with NovaCloud(at) as made:
        yield made
    shutil.rmtree(at)


class Scene:
    """Makes servers and volumes, and takes them away again."""

    def __init__(self, cloud: NovaCloud) -> None:
        self.cloud = cloud
        self._servers: list[Server] = []
        self._volumes: list[Volume] = []

    @property
    def one(self) -> ComputeHost:
        return self.cloud.hosts[0]

    @property
    def two(self) -> ComputeHost:
        return self.cloud.hosts[1]

    def volume(self, **how: Any) -> Volume:
        self._volumes.append(Volume(self.cloud, **how))
        return self._volumes[-1]

    def server(self, *more: Volume, **how: Any) -> Server:
        """Booted from a volume of its own."""
        made = Server(self.cloud, self.volume(bootable=True), *more, **how)
        self._servers.append(made)
        made.becomes("ACTIVE")
        return made

    def evacuate(self, server: Server) -> None:
        """Its host loses its power, an operator says so, and it is started on the other."""
        dead, there = server.host, server.other
        dead.power_off()
        self.cloud.say_down(dead, down=True)
        server.act("evacuate", {"host": there.name})
        wait(lambda: server.host is there, "the server is evacuated", 240)
        server.becomes("SHUTOFF")
        server.act("os-start")
        server.becomes("ACTIVE")

    def revive(self, dead: ComputeHost) -> None:
        """It has power again, and Nova hears of it."""
        dead.power_on()
        dead.start_compute()
        self.cloud.say_down(dead, down=False)
        self.cloud.wait_for_hosts()
        wait(lambda: not dead.wanted(), "the host that came back wants nothing")
        wait(lambda: not dead.mounts(), "the host that came back has nothing mounted")

    def clear(self) -> None:
        """Delete all, as their owner does, and look what is left."""
        for server in self._servers:
            server.delete()
        for volume in self._volumes:
            volume.delete()
        for each in self.cloud.hosts:
            wait(lambda each=each: not each.wanted(), f"{each.name} wants {each.wanted()}", 90)
            wait(lambda each=each: not each.mounts(), f"{each.name} has {each.mounts()}", 90)
            assert each.pending() == []
            assert each.node.run("virsh", "list", "--all", "--name").split() == []


@pytest.fixture
def scene(cloud: NovaCloud, request: pytest.FixtureRequest) -> Iterator[Scene]:
    made = Scene(cloud)
    yield made
    try:
        made.clear()
    except AssertionError as e:
        raise AssertionError(f"{e}\n{cloud.logs()}") from e


@pytest.fixture
def told(cloud: NovaCloud) -> Callable[[], str]:
    return cloud.logs
