"""A fleet of two real hosts: a guest that writes moves, while each of those at work is killed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import libvirt
import pytest
from conftest import GUESTS

from lab import host, leftovers
from lab.demo import Untrue, until
from lab.etcd import Missing
from lab.fleet.node import Node
from lab.fleet.site import BLOCK, Fleet, Volume, Watch, Writer, states
from lab.guest import Silent, pattern
from lab.virtuozzo.cluster import Virtuozzo
from tests.support.missing import missing

LONG = 240.0
"""Seconds: a controller is found silent after 30, and the machine may be busy."""
pytestmark = pytest.mark.timeout(900)


class Scene:
    """The fleet, and a guest that has one volume and writes to it all the time."""

    def __init__(self, fleet: Fleet, writer: Writer, volume: Volume) -> None:
        self.fleet, self.writer, self.volume = fleet, writer, volume
        self.owner = volume.file.stat().st_uid

    def other(self) -> Node:
        return next(node for node in self.fleet.nodes if node is not self.writer.node)

    def migrate(
        self, strike: Callable[[Scene], None] = lambda scene: None, *, copies: bool = True
    ) -> tuple[int, str]:
        """Move the guest to the other host; *strike* once a copy is there, if one comes.

        The exit code, and what the command and everybody else said.
        """
        there = self.other()
        words = ("fleet", "migrate", self.writer.name, there.name)
        admin = ("--directory", str(self.fleet.admin), "--timeout", str(LONG))
        order = self.fleet.command.start(*words, *admin)
        if copies:
            until(lambda: states(there, self.writer.name), "a copy comes", LONG)
        strike(self)
        out, err = order.communicate(timeout=LONG + 30)
        return order.returncode, f"{out}{err}{self.fleet.logs()}"

    def settle(self) -> Node:
        """Wait until the guest runs on the host that has it, and nothing of it is elsewhere."""
        name = self.writer.name

        def settled() -> Node | None:
            told = {each["guest"]: each for each in self.fleet.ask("guests")}[name]
            if told["moving_to"]:
                return None
            home = self.fleet.node(told["host"])
            elsewhere = [states(node, name) for node in self.fleet.nodes if node is not home]
            return home if states(home, name) == "running" and not any(elsewhere) else None

        home = until(settled, "it comes to rest", LONG)
        self.writer.at(home)
        return home

    def check_data(self) -> None:
        """It writes on: it was not booted anew. And all is in the file as it was written.

        The file is QEMU's still: the host that the guest left has not given it back to root.
        """
        last = self.writer.writes_on()
        assert self.volume.wrong(last) == []
        assert self.volume.file.stat().st_uid == self.owner

    def is_sound(self) -> bool:
        """Whether the guest runs, and its programs do."""
        try:
            return self.writer.writes_on() > 0
        except (Untrue, Silent, AssertionError, OSError):
            return False

    def boot_anew(self) -> None:
        name, node = self.writer.name, self.settle()
        node.run("virsh", "destroy", name)
        node.run("virsh", "start", name, deadline=LONG)
        self.writer.at(node)
        self.writer.agent.ready(LONG)
        self.writer.write_all_the_time(self.volume)


@pytest.fixture(autouse=True)
def leftovers_check() -> None:
    """Nothing: the hosts live from test to test. What they leave is looked for at their end."""


@pytest.fixture(scope="module")
def scene(lab: Path) -> Iterator[Scene]:
    libvirt.registerErrorHandler(lambda *_: None, None)
    connection = libvirt.open("qemu:///system")
    before = leftovers.look(connection)
    with tempfile.TemporaryDirectory(dir=lab, prefix="fleet-") as directory:
        Path(directory).chmod(0o755)
        try:
            fleet = Fleet(Path(directory), 2)
        except Missing as e:
            missing(str(e))
        with fleet, Watch(fleet.nodes) as watch:
            (writer,) = fleet.boot(web01=fleet.nodes[0])
            volume = fleet.volume(fleet.quobyte.volume("vol"), 1)
            fleet.order("attach", writer.name, "--connection", str(volume.connection))
            writer.write_all_the_time(volume)
            yield Scene(fleet, writer, volume)
            fleet.order("detach", writer.name, volume.id, deadline=LONG)
        assert watch.looks > 10
        assert watch.twice == []
    assert leftovers.after(connection, before, GUESTS) == []
    connection.close()


@pytest.fixture(autouse=True)
def sound(scene: Scene) -> None:
    """Its guest is: what one test broke is that test's failure, and no other's."""
    if not scene.is_sound():
        scene.boot_anew()


def source_agent(scene: Scene) -> None:
    scene.fleet.kill_agent(scene.writer.node)
    scene.fleet.start_agent(scene.writer.node)


def destination_agent(scene: Scene) -> None:
    there = scene.other()
    scene.fleet.kill_agent(there)
    scene.fleet.start_agent(there)


def controller(scene: Scene) -> None:
    scene.fleet.kill_controller("c1")
    scene.fleet.start_controller("c1")


def leader_of_etcd(scene: Scene) -> None:
    leader = scene.fleet.etcd.leader()
    scene.fleet.etcd.restart(leader)


def source_libvirtd(scene: Scene) -> None:
    scene.writer.node.kill_libvirtd()
    scene.writer.node.start_libvirtd()


def destination_libvirtd(scene: Scene) -> None:
    there = scene.other()
    there.kill_libvirtd()
    there.start_libvirtd()


GOES_ON = (source_agent, destination_agent, controller, leader_of_etcd)
MAY_STAY = (source_libvirtd, destination_libvirtd)


@pytest.mark.parametrize("strike", GOES_ON, ids=lambda strike: strike.__name__)
def test_whoever_is_killed_the_guest_arrives(scene: Scene, strike: Callable[[Scene], None]) -> None:
    there = scene.other()
    code, said = scene.migrate(strike)
    assert code == 0, said
    assert scene.settle() is there, said
    scene.check_data()


@pytest.mark.parametrize("strike", MAY_STAY, ids=lambda strike: strike.__name__)
def test_a_libvirtd_is_killed_and_the_guest_is_on_one_host(
    scene: Scene, strike: Callable[[Scene], None]
) -> None:
    """Where it stays, the command says so, and the next one brings it there."""
    here, there = scene.writer.node, scene.other()
    code, said = scene.migrate(strike)
    assert scene.settle() is (there if code == 0 else here), said
    scene.check_data()
    if code:
        code, said = scene.migrate()
        assert code == 0, said
        assert scene.settle() is there, said
        scene.check_data()


def test_an_image_of_virtuozzo_keeps_its_owner_where_its_guest_goes(scene: Scene) -> None:
    """libvirt does not know that its file system is shared; the back end does."""
    product = Virtuozzo(host.LAB)
    volume = scene.fleet.volume(product.cluster("vault"), 2)
    owner = volume.file.stat().st_uid
    scene.fleet.order("attach", scene.writer.name, "--connection", str(volume.connection))
    there = scene.other()
    code, said = scene.migrate()
    assert code == 0, said
    assert scene.settle() is there, said
    assert volume.file.stat().st_uid == owner
    scene.writer.write(volume, "after")
    assert volume.file.read_bytes()[:BLOCK] == pattern("after", BLOCK)
    scene.fleet.order("detach", scene.writer.name, volume.id)
    assert "vault" not in there.run("cat", "/proc/self/mountinfo")
    product.clear()


def test_a_file_that_was_replaced_under_its_guest_keeps_it(scene: Scene) -> None:
    """Another client of the share did it. What the guest is given anew goes along."""
    share = scene.fleet.quobyte.volume("vol")
    share.daemon(remember=60)
    volume = scene.fleet.volume(share, 3)
    scene.fleet.order("attach", scene.writer.name, "--connection", str(volume.connection))
    scene.writer.write(volume, "before")
    name, here, there = scene.writer.name, scene.writer.node, scene.other()
    new = volume.file.with_name("new")
    new.write_bytes(bytes(volume.file.stat().st_size))
    shutil.chown(new, volume.file.stat().st_uid)
    volume.file.rename(volume.file.with_name("old"))
    new.rename(volume.file)
    code, said = scene.migrate(copies=False)
    assert code != 0, said
    assert f"{name} stays: another host would open another file" in said
    assert volume.file.name in said
    assert scene.settle() is here, said
    # The host's kernel has looked by now, so that it is known beforehand.
    until(lambda: _refused(scene), "its host reports it", LONG)
    here.run("virsh", "detach-disk", name, _device(here, name, volume), "--live", "--config")
    until(lambda: not _refused(scene), "it is plugged anew", LONG)
    code, said = scene.migrate()
    assert code == 0, said
    assert scene.settle() is there, said
    scene.check_data()
    scene.fleet.order("detach", name, volume.id)
    share.daemon()


def _refused(scene: Scene) -> bool:
    """Whether a dry run says that the guest stays."""
    words = ("fleet", "migrate", scene.writer.name, scene.other().name, "--dry-run")
    told = scene.fleet.command(*words, "--directory", str(scene.fleet.admin), code=None)
    assert told.returncode in (0, 3), told
    return told.returncode == 3


def _device(node: Node, name: str, volume: Volume) -> str:
    """What libvirt calls the disk of a volume."""
    rows = [line.split() for line in node.run("virsh", "domblklist", name).splitlines()]
    return next(row[0] for row in rows if row[1:] and row[1].endswith(volume.file.name))


def test_a_stopped_guest_moves_with_its_definition(scene: Scene) -> None:
    """It stays stopped, has its volume, and finds what it wrote once it is started."""
    last = scene.writer.writes_on()
    here, there = scene.writer.node, scene.other()
    here.run("virsh", "destroy", scene.writer.name)
    scene.fleet.order("migrate", scene.writer.name, there.name, deadline=LONG)
    assert (states(here, scene.writer.name), states(there, scene.writer.name)) == ("", "stopped")
    there.run("virsh", "start", scene.writer.name, deadline=LONG)
    scene.writer.at(there)
    scene.writer.agent.ready(LONG)
    assert scene.volume.wrong(last) == []
    scene.writer.device(scene.volume)
