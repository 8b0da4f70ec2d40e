"""Agents follow a fleet: real etcd, real libvirt, and a share that each host mounts for itself."""

from __future__ import annotations

import json
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import libvirt
import pytest
from fleet_rig import FENCED, LabFleet
from libvirt_rig import until
from scene import Scene, Volume, daemons, gone_at_the_end, halves, kill_daemon, small_guest

from lab import host as lab_host
from lab.command import Moorline

REFUSED, FAILED, NOT_OURS, UNAVAILABLE = 3, 5, 7, 11
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
WORD = "--i-know-that-no-other-host-has-it"


@contextmanager
def fleet_in(lab: Path, members: int = 1, *, second: bool = False) -> Iterator[LabFleet]:
    with tempfile.TemporaryDirectory(dir=lab, prefix="fleet-") as directory:
        Path(directory).chmod(0o755)
        fleet = LabFleet(Path(directory), members, second=second)
        try:
            yield fleet
        finally:
            fleet.close()


@pytest.fixture
def fleet(lab: Path, leftovers_check: None) -> Iterator[LabFleet]:
    """One host, and one member of etcd."""
    with fleet_in(lab) as fleet:
        yield fleet


@pytest.fixture
def pair(lab: Path, leftovers_check: None) -> Iterator[LabFleet]:
    """Two hosts."""
    with fleet_in(lab, second=True) as fleet:
        yield fleet


@pytest.fixture
def guest(libvirt_conn: Any, leftovers_check: None) -> Iterator[Any]:
    with small_guest(libvirt_conn, "web01", running=True) as domain:
        yield domain


@pytest.fixture
def there(pair: LabFleet) -> Iterator[Any]:
    """The second host's libvirt."""
    assert pair.second is not None
    connection = libvirt.open(pair.second.uri)
    yield connection
    for domain in connection.listAllDomains():
        if domain.isActive():
            domain.destroy()
        domain.undefine()
    connection.close()


@pytest.fixture
def hook(fleet: LabFleet) -> Iterator[None]:
    """libvirt asks Moorline before it starts a guest."""
    fleet.one.moorline("hook", "install")
    lab_host.kill_libvirtd()  # it looks for hooks when it starts
    lab_host.start_libvirtd()
    yield
    fleet.one.moorline("hook", "uninstall")


@pytest.fixture
def another_boot(tmp_path: Path) -> Iterator[Path]:
    """A file to be mounted over the kernel's id of this boot; taken away at the end."""
    file = tmp_path / "boot_id"
    file.write_text(f"{uuid.uuid4()}\n")
    yield file
    subprocess.run(["umount", str(BOOT_ID)], check=False, capture_output=True)


def attach(fleet: LabFleet, volume: Volume, guest: str = "web01") -> None:
    fleet.wait_for_guest(guest, "one")
    fleet("attach", guest, "--connection", str(volume.connection))


def test_attach_and_detach_through_the_fleet(fleet: LabFleet, guest: Any, scene: Scene) -> None:
    volume = scene.volume()
    attach(fleet, volume)
    assert halves(guest, volume.id) == (True, True)
    assert fleet.one.seen() == {volume.id: "attached"}
    attach(fleet, volume)  # once more is success
    the_copy_that_it_goes_on_with_is_its_own(fleet, scene, volume)
    guest.destroy()  # it has no system that would let go
    fleet("detach", "web01", volume.id)
    assert halves(guest, volume.id) == (False, False)
    assert fleet.one.seen() == {}
    until(lambda: not scene.mounts())
    a_disk_that_somebody_else_plugs_is_told(fleet, scene)


def a_disk_that_somebody_else_plugs_is_told(fleet: LabFleet, scene: Scene) -> None:
    """Who is told that it is no disk deletes its file."""
    serial = str(uuid.uuid4())
    assert "is no disk of web01" in fleet("detach", "web01", serial)
    file = scene.directory / "others.raw"
    file.write_bytes(bytes(1 << 20))
    plug = ("virsh", "attach-disk", "web01", str(file), "vdy", "--serial", serial, "--config")
    subprocess.run(plug, check=True)

    def told() -> bool:
        words = ("fleet", "detach", "web01", serial, "--directory", str(fleet.admin))
        return Moorline()(*words, code=None).returncode == NOT_OURS

    until(told)
    subprocess.run(["virsh", "detach-disk", "web01", "vdy", "--config"], check=True)


def the_copy_that_it_goes_on_with_is_its_own(fleet: LabFleet, scene: Scene, volume: Volume) -> None:
    """And once it was copied back, all is as it was."""

    def told() -> str:
        return str(fleet.json("list", "web01"))

    its, copy = (f"{scene.mount_point()}/{name}" for name in (volume.file.name, "copy"))
    job = ("--format", "raw", "--transient-job", "--wait", "--pivot")
    subprocess.run(["virsh", "blockcopy", "web01", its, copy, *job], check=True)
    until(lambda: copy in told(), 60)
    info = volume.share.connection(name="copy", volume_id=str(uuid.uuid4()))
    other = str(scene.write("copy.json", info))
    assert "the same storage is " in fleet("attach", "web01", "--connection", other, code=REFUSED)
    back = ("--reuse-external", *job)
    subprocess.run(["virsh", "blockcopy", "web01", copy, its, *back], check=True)
    until(lambda: copy not in told(), 60)


def test_the_agent_is_killed_in_the_midst_of_an_attach(
    fleet: LabFleet, guest: Any, scene: Scene
) -> None:
    volume = scene.volume()
    fleet.wait_for_guest("web01", "one")
    scene.share.command(slow=2)
    asked = fleet.begin("attach", "web01", "--connection", str(volume.connection))
    until(scene.mount_calls)
    fleet.one.kill()
    scene.share.command()
    fleet.one.start()
    _, error = asked.communicate(timeout=90)
    assert asked.returncode == 0, error
    assert halves(guest, volume.id) == (True, True)


def test_while_etcd_hangs_what_is_there_is_healed_and_nothing_new_is_given(
    fleet: LabFleet, guest: Any, scene: Scene
) -> None:
    volume, other = scene.volume(), scene.volume()
    attach(fleet, volume)
    with fleet.etcd_hangs():
        kill_daemon(scene.share)
        until(lambda: daemons(scene.share), 60)
        fleet.one.kill()
        fleet.one.start()  # a new process heals as well: this host has not booted
        kill_daemon(scene.share)
        until(lambda: daemons(scene.share), 60)
        given = ("attach", "web01", "--connection", str(other.connection))
        assert "this host is in a fleet" in fleet.one.moorline(*given, code=REFUSED).stderr
        fleet.one.moorline("detach", "web01", volume.id, code=REFUSED)
        guest.destroy()
        told = fleet.one.moorline("start", "web01", code=FAILED).stderr
        assert "cannot be told whether another host has it" in told
        assert not guest.isActive()
        fleet.one.moorline("start", "web01", WORD, "the others are off, ticket 12")
        assert guest.isActive()
        assert "the others are off, ticket 12" in fleet.one.events()
    fleet("attach", "web01", "--connection", str(other.connection))
    assert halves(guest, other.id) == (True, True)


@pytest.mark.usefixtures("hook")
def test_after_a_boot_nothing_starts_before_etcd_answers(
    fleet: LabFleet, libvirt_conn: Any, scene: Scene, another_boot: Path
) -> None:
    connection = libvirt.open("qemu:///system")  # the fixture's died with the libvirtd before
    with small_guest(connection, "web01", running=True) as guest:
        volume = scene.volume()
        attach(fleet, volume)
        fleet.wait_for_guest("web01", "one", "running")
        with fleet.etcd_hangs():
            fleet.one.stop()
            guest.destroy()
            lab_host.umount(scene.mount_point())
            subprocess.run(["mount", "--bind", str(another_boot), str(BOOT_ID)], check=True)
            fleet.one.start()
            with pytest.raises(libvirt.libvirtError, match="cannot be told whether another host"):
                guest.create()
            assert not scene.mounts(), "another host may have the volume by now"
        until(guest.isActive, 60)
        assert halves(guest, volume.id) == (True, True)
        assert len(scene.mounts()) == 1
    connection.close()


@pytest.fixture
def trio(lab: Path, leftovers_check: None) -> Iterator[LabFleet]:
    """One host, and three members of etcd."""
    with fleet_in(lab, members=3) as fleet:
        yield fleet


def test_the_leader_of_etcd_is_killed_in_the_midst(
    trio: LabFleet, guest: Any, scene: Scene
) -> None:
    volumes = [scene.volume() for _ in range(3)]
    attach(trio, volumes[0])
    leader = trio.cluster.leader()
    given = [("attach", "web01", "--connection", str(volume.connection)) for volume in volumes]
    asked = [trio.begin(*words) for words in given[1:]]
    trio.cluster.kill(leader)
    for each, words in zip(asked, given[1:], strict=True):
        _, error = each.communicate(timeout=90)
        if each.returncode == UNAVAILABLE:  # that says that nothing was recorded
            until(lambda words=words: trio.begin(*words).wait(90) == 0, 60)
        else:
            assert each.returncode == 0, error
    assert all(halves(guest, volume.id) == (True, True) for volume in volumes)


def test_two_hosts_ask_for_one_volume_at_once(
    pair: LabFleet, guest: Any, there: Any, scene: Scene
) -> None:
    with small_guest(there, "web02", running=True) as other:
        pair.wait_for_guest("web01", "one")
        pair.wait_for_guest("web02", "two")
        volume = scene.volume()
        given = ("--connection", str(volume.connection))
        asked = [pair.begin("attach", name, *given) for name in ("web01", "web02")]
        ended = [(each.communicate(timeout=90)[1], each.returncode) for each in asked]
        assert sorted(code for _, code in ended) == [0, REFUSED], ended
        has = [halves(domain, volume.id) for domain in (guest, other)]
        assert has == [(True, True) if code == 0 else (False, False) for _, code in ended]
        winner = "web01" if ended[0][1] == 0 else "web02"
        assert winner in next(told for told, code in ended if code == REFUSED)
        # The same file by another of its registries, and under another id.
        info = volume.share.connection(name=volume.file.name, volume_id=str(uuid.uuid4()))
        info["data"]["export"] = f"reg9.example,{info['data']['export']}"
        again = scene.write("again.json", info)
        loser = {"web01": "web02", "web02": "web01"}[winner]
        told = pair("attach", loser, "--connection", str(again), code=REFUSED)
        assert f"the same storage is volume {volume.id}" in told
        assert [halves(domain, volume.id) for domain in (guest, other)] == has


def test_a_host_that_was_given_up_comes_back(pair: LabFleet, there: Any, libvirt_conn: Any) -> None:
    """Its agent is dead and its guest runs on, as if only the network had broken.

    It is the second host: all guests of the one that is given up go, and the lab's own libvirt
    has guests of other tests. The guest has no volume: both hosts would mount it at one path,
    and they share the processes by which a mount is known to be served.
    """
    with small_guest(there, "web01", running=True) as guest:
        pair.wait_for_guest("web01", "two", "running")
        until(lambda: is_kept(pair, "web01"), 180)
        pair.two.kill()
        assert "evacuated" in pair("evacuate", "two", "--fenced", FENCED, deadline=180)
        with gone_at_the_end(libvirt_conn, guest.UUIDString()):
            until(lambda: "web01" in running_names(libvirt_conn), 180)
            assert guest.isActive(), "nobody has told the old host yet"
            pair.two.start()
            until(lambda: "stopping its copy" in pair.two.events(), 180)
            until(lambda: not there.listAllDomains(), 180)

            def is_back() -> bool:
                host = {each["host"]: each for each in pair.json("hosts")}["two"]
                return (host["fenced"], host["cordoned"]) == ("", True)

            until(is_back, 180)
            assert "web01" in running_names(libvirt_conn)
            assert not there.listAllDomains()


def running_names(connection: Any) -> list[str]:
    return [each.name() for each in connection.listAllDomains() if each.isActive()]


def is_kept(fleet: LabFleet, guest: str) -> bool:
    """Whether a host's report of the guest has its definition."""
    prefix = ("get", "--prefix", "/moorline/status/", "--print-value-only")
    lines = fleet.cluster.control(*prefix).splitlines()
    reports = [json.loads(line) for line in lines if line]
    return any(each.get("definition") for each in reports if each.get("name") == guest)
