"""A whole small cloud, for all stories: `make test-cloud`."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lab import host
from lab.cloud.broker import PROGRAM
from lab.cloud.compute import wait
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
    def one(self) -> Any:
        return self.cloud.hosts[0]

    @property
    def two(self) -> Any:
        return self.cloud.hosts[1]

    def volume(self, **how: Any) -> Volume:
        self._volumes.append(Volume(self.cloud, **how))
        return self._volumes[-1]

    def server(self, *more: Volume, **how: Any) -> Server:
        """Booted from a volume of its own."""
        self._servers.append(Server(self.cloud, self.volume(bootable=True), *more, **how))
        return self._servers[-1]

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
