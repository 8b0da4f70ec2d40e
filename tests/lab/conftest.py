"""What the tests in the lab share. They run inside a private host: ``make test``, or
``python -m lab run -- pytest tests/lab``; elsewhere they are skipped.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import ansible_rig
import pytest
from libvirt_rig import LibvirtRig
from scene import Scene, small_guest
from survive_rig import RUNS

from lab import guest as guests
from lab import host, leftovers
from lab.command import Moorline
from lab.quobyte.cluster import Quobyte, QuobyteVolume
from moorline.host.mount.fuse_clients import CONNECTIONS

GUESTS = ("moor1", "moor2")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.lab)


@pytest.fixture(scope="session")
def lab() -> Path:
    """The lab's directory in this host."""
    if not host.inside():
        pytest.skip("not in a lab host: run `python -m lab run -- pytest tests/lab`")
    return host.LAB


@pytest.fixture
def libvirt_conn(lab: Path) -> Iterator[Any]:
    import libvirt

    libvirt.registerErrorHandler(lambda *_: None, None)
    connection = libvirt.open("qemu:///system")
    yield connection
    connection.close()


class Pool:
    """Guests that stay booted between tests."""

    def __init__(self) -> None:
        self._agents: dict[str, guests.GuestAgent] = {}

    def get(self, connection: Any, name: str) -> guests.Guest:
        missing = [n for n in GUESTS if n not in self._agents]
        if name in missing:
            for each in guests.boot(connection, missing, host.images(), host.SOCKETS):
                self._agents[each.name] = each.agent
        return guests.Guest(connection.lookupByName(name), self._agents[name])

    def drop(self, connection: Any) -> None:
        """A test spoilt them: the next one gets new ones."""
        for name, agent in self._agents.items():
            guests.remove(guests.Guest(connection.lookupByName(name), agent))
        self._agents.clear()


@pytest.fixture(scope="session")
def pool(lab: Path) -> Pool:
    return Pool()


@pytest.fixture
def guest(pool: Pool, libvirt_conn: Any, leftovers_check: None) -> guests.Guest:
    """A running guest without disks."""
    return pool.get(libvirt_conn, GUESTS[0])


@pytest.fixture
def threaded(libvirt_conn: Any, leftovers_check: None) -> Iterator[guests.Guest]:
    """A guest with an I/O thread, which serves its SCSI disks."""
    (guest,) = guests.boot(libvirt_conn, ["threaded"], host.images(), host.SOCKETS, threaded=True)
    yield guest
    guests.remove(guest)


@pytest.fixture
def second_guest(pool: Pool, libvirt_conn: Any, leftovers_check: None) -> guests.Guest:
    """Another running guest without disks."""
    return pool.get(libvirt_conn, GUESTS[1])


@pytest.fixture
def quobyte(lab: Path) -> Iterator[Quobyte]:
    """A Quobyte cluster without volumes, that behaves well."""
    cluster = Quobyte(lab)
    yield cluster
    cluster.clear()


@pytest.fixture
def share(quobyte: Quobyte, request: pytest.FixtureRequest) -> QuobyteVolume:
    """An empty Quobyte volume."""
    return quobyte.volume("vol-" + "".join(c for c in request.node.name if c.isalnum())[:40])


@pytest.fixture
def moorline(lab: Path) -> Iterator[Moorline]:
    """The command, with an empty state directory, and its mounts below that."""
    # Not tmp_path: QEMU's user could not reach the mounts below pytest's directories.
    with tempfile.TemporaryDirectory(dir=lab, prefix="state-") as directory:
        Path(directory).chmod(0o755)
        yield Moorline(Path(directory) / "moorline")


@pytest.fixture
def scene(
    moorline: Moorline, share: QuobyteVolume, libvirt_conn: Any, leftovers_check: None
) -> Scene:
    """A share, a state directory, and witnesses of what becomes of them."""
    return Scene(moorline, share, libvirt_conn)


@pytest.fixture
def survivors(scene: Scene, guest: guests.Guest, pool: Pool) -> Iterator[Scene]:
    """The scene, of whose share it was said that its client writes through."""
    settings = scene.write(
        "moorline.conf", f"[libvirt]\nquobyte_share_writes_through = {scene.share.export}\n"
    )
    scene.moorline = replace(scene.moorline, after=("--config-file", str(settings)))
    yield scene
    import libvirt

    with suppress(libvirt.libvirtError):  # the test had it removed
        if guest.domain.state()[0] != RUNS:
            pool.drop(guest.domain.connect())


@pytest.fixture
def stopped(libvirt_conn: Any, leftovers_check: None) -> Iterator[Any]:
    """A guest that is defined, has no system, and can be started in no time."""
    with small_guest(libvirt_conn, "small1") as domain:
        yield domain


@pytest.fixture
def fusectl(leftovers_check: None) -> Iterator[None]:
    """The kernel's control of FUSE connections, as systemd mounts it."""
    if CONNECTIONS.is_mount():
        yield
        return
    subprocess.run(["mount", "-t", "fusectl", "fusectl", CONNECTIONS], check=True)
    yield
    host.umount(CONNECTIONS)


@pytest.fixture(autouse=True)
def leftovers_check(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a mount, a process, a domain or a disk behind; clean up after it."""
    if not host.inside():
        yield
        return
    import libvirt

    pool: Pool = request.getfixturevalue("pool")
    connection = libvirt.open("qemu:///system")
    before = leftovers.look(connection)
    connection.close()
    yield
    connection = libvirt.open("qemu:///system")
    try:
        if left := leftovers.after(connection, before, GUESTS):
            pool.drop(connection)
            leftovers.clean(connection, before)
            pytest.fail("left behind: " + "; ".join(left))
    finally:
        connection.close()


@pytest.fixture(scope="session")
def passing_agent(lab: Path, pool: Pool) -> Iterator[guests.GuestAgent]:
    """The agent of a guest that runs without a definition, booted once."""
    import libvirt

    connection = libvirt.open("qemu:///system")
    xml = guests.domain_xml("passes", host.images(), host.SOCKETS)
    agent = guests.GuestAgent(host.SOCKETS / "passes.agent")
    connection.createXML(xml)
    pool.get(connection, GUESTS[0])  # they boot side by side
    agent.ready()
    connection.close()
    yield agent
    agent.close()
    connection = libvirt.open("qemu:///system")  # a test may have killed libvirtd
    connection.lookupByName("passes").destroy()
    connection.close()


@pytest.fixture
def transient_guest(passing_agent: guests.GuestAgent, libvirt_conn: Any) -> guests.Guest:
    """A running guest that has no definition."""
    return guests.Guest(libvirt_conn.lookupByName("passes"), passing_agent)


@pytest.fixture
def libvirt_rig(
    transient_guest: guests.Guest, pool: Pool, libvirt_conn: Any, lab: Path, leftovers_check: None
) -> Iterator[LibvirtRig]:
    """Libvirt, with guests of each kind, for the hypervisor contract."""
    # Not tmp_path: QEMU's user could not reach it.
    with tempfile.TemporaryDirectory(dir=lab, prefix="disks-") as directory:
        Path(directory).chmod(0o755)
        transient = libvirt_conn.lookupByName(transient_guest.name)
        running = pool.get(libvirt_conn, GUESTS[0]).domain
        rig = LibvirtRig(libvirt_conn, running, transient, Path(directory))
        yield rig
        rig.tear_down()


@pytest.fixture(scope="session")
def collection(lab: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the Ansible collection is installed."""
    return ansible_rig.installed(tmp_path_factory.mktemp("collections"))
