"""Volumes by name, of the real keystone and Cinder, on a real libvirt: `make test-cinder`."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from libvirt_rig import until
from real_cinder_rig import CinderVolume, a_volume, cinder, is_attached
from scene import disk, halves, small_guest

from lab.cinder.real import RealCloud
from lab.command import Moorline


@pytest.fixture(scope="module")
def cloud(lab: Path) -> Iterator[RealCloud]:
    with cinder(lab) as made:
        yield made


@pytest.fixture
def command(moorline: Moorline, cloud: RealCloud) -> Moorline:
    return replace(moorline, environment=dict(cloud.environment()))


@pytest.fixture
def stopped(libvirt_conn: Any) -> Iterator[Any]:
    """A guest that lets each disk go at once."""
    with small_guest(libvirt_conn, "small") as domain:
        yield domain


@pytest.fixture
def volume(cloud: RealCloud) -> Iterator[CinderVolume]:
    with a_volume(cloud) as made:
        yield made


def test_attached_and_detached_by_name(
    command: Moorline, volume: CinderVolume, stopped: Any
) -> None:
    foreseen = command.json("attach", "small", "cinder:data", "--dry-run")
    assert foreseen["steps"] == ["reserve", "connect", "attach", "complete"]
    assert not is_attached(volume, stopped)
    command("attach", "small", "cinder:data")
    assert is_attached(volume, stopped)
    xml = disk(stopped, volume.id, inactive=True)
    assert xml is not None
    source = xml.find("source")
    assert source is not None
    assert source.get("file", "").endswith(f"/volume-{volume.id}")
    found = command.json("doctor", code=None)["findings"]
    assert not [each for each in found if each["check"].startswith("cinder")]
    assert command.json("detach", "small", volume.id, "--dry-run")["steps"][-1] == "release"
    command("detach", "small", "cinder:data")
    assert not is_attached(volume, stopped)


def test_cinder_is_down(
    command: Moorline, cloud: RealCloud, volume: CinderVolume, stopped: Any
) -> None:
    cloud.kill()
    command("attach", "small", "cinder:data", "--timeout", "1", code=11)
    assert command.json("list") == []
    cloud.start()
    command("attach", "small", f"cinder:{volume.id}")
    cloud.kill()
    command("detach", "small", f"cinder:{volume.id}", "--timeout", "2", code=6)
    assert halves(stopped, volume.id) == (False, False)
    cloud.start()
    assert volume.status == "in-use"
    command("sweep")
    assert not is_attached(volume, stopped)


def test_cinder_is_killed_while_it_is_asked(
    command: Moorline, cloud: RealCloud, volume: CinderVolume, stopped: Any
) -> None:
    running = command.start("attach", "small", f"cinder:{volume.id}", "--timeout", "120")
    until(lambda: volume.attachments() or running.poll() is not None, 60)
    cloud.kill()
    was_at_it = running.poll() is None
    cloud.start()
    running.communicate(timeout=180)
    assert was_at_it
    command("attach", "small", f"cinder:{volume.id}")
    assert is_attached(volume, stopped)
    command("detach", "small", volume.id)
    assert not is_attached(volume, stopped)


@pytest.mark.parametrize("status", ["reserved", "attaching", "attached"])
def test_killed_while_cinder_is_asked(
    command: Moorline, volume: CinderVolume, stopped: Any, status: str
) -> None:
    """Killed as soon as Cinder's attachment has got so far, at whatever it does then."""
    order = ["reserved", "attaching", "attached"]

    def reached() -> bool:
        its = [order.index(each["status"]) for each in volume.attachments()]
        return running.poll() is not None or any(at >= order.index(status) for at in its)

    running = command.start("attach", "small", f"cinder:{volume.id}")
    until(reached, 60)
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate()
    command("sweep", code=None)
    is_attached(volume, stopped)
    command("attach", "small", f"cinder:{volume.id}")
    assert is_attached(volume, stopped)
    command("detach", "small", volume.id)
    assert not is_attached(volume, stopped)


def test_two_at_once_have_one_winner(
    command: Moorline, volume: CinderVolume, libvirt_conn: Any, stopped: Any
) -> None:
    with (
        small_guest(libvirt_conn, "other") as other,
        tempfile.TemporaryDirectory(dir=Path(str(command.state)).parent) as elsewhere,
    ):
        Path(elsewhere).chmod(0o755)
        second = Moorline(Path(elsewhere) / "moorline", command.environment)
        both = [
            each.start("attach", guest, f"cinder:{volume.id}", "--timeout", "30")
            for each, guest in ((command, "small"), (second, "other"))
        ]
        told = [each.communicate(timeout=180) for each in both]
        codes = sorted(each.returncode for each in both)
        assert codes == [0, 3], told
        command("sweep")
        second("sweep")
        assert [halves(each, volume.id) for each in (stopped, other)].count((False, True)) == 1
        [its] = volume.attachments()
        winner, guest = (command, stopped) if both[0].returncode == 0 else (second, other)
        assert its["instance"] == guest.UUIDString()
        winner("detach", guest.name(), volume.id)
        assert (volume.attachments(), volume.status) == ([], "available")


def test_a_volume_in_error_is_refused(
    command: Moorline, volume: CinderVolume, stopped: Any
) -> None:
    volume.act("os-reset_status", {"status": "error"})
    command("attach", "small", "cinder:data", "--dry-run", code=3)
    command("attach", "small", "cinder:data", code=3)
    assert volume.attachments() == []


def test_a_volume_that_is_deleted_beneath(
    command: Moorline, volume: CinderVolume, stopped: Any
) -> None:
    command("attach", "small", "cinder:data")
    volume.delete()
    found = command.json("doctor", code=None)["findings"]
    assert "cinder-taken-away" in [each["check"] for each in found]
    command("detach", "small", f"cinder:{volume.id}")
    assert halves(stopped, volume.id) == (False, False)
    assert command.json("list") == []


def test_without_nova_cinder_lets_a_service_go_alone(
    command: Moorline, cloud: RealCloud, volume: CinderVolume, stopped: Any
) -> None:
    plain = replace(command, environment=dict(cloud.environment("plain")))
    plain("attach", "small", "cinder:data")
    plain("detach", "small", volume.id, "--timeout", "2", code=6)
    assert [each["status"] for each in volume.attachments()] == ["attached"]
    found = plain.json("doctor", code=None)["findings"]
    assert "cinder-left-behind" in [each["check"] for each in found]
    command("sweep")
    assert not is_attached(volume, stopped)


def test_released_and_adopted_by_its_serial(
    command: Moorline, volume: CinderVolume, stopped: Any
) -> None:
    command("attach", "small", "cinder:data")
    command("release", "small", volume.id)
    assert is_attached(volume, stopped)
    found = command.json("adopt", "small", "--all", "--cinder")["disks"]
    assert [(each["outcome"], each["volume"]) for each in found] == [("adopted", volume.id)]
    assert is_attached(volume, stopped)
    command("detach", "small", volume.id)
    assert not is_attached(volume, stopped)


def test_extended_as_its_driver_has_it(
    command: Moorline, volume: CinderVolume, stopped: Any
) -> None:
    """The Quobyte driver extends what nobody has; asked otherwise it leaves the volume in error."""
    command("attach", "small", "cinder:data")
    refused = command("extend", "small", volume.id, "2G", code=3)
    assert "extends no volume that is attached" in refused.stderr
    assert is_attached(volume, stopped)
    command("detach", "small", volume.id)
    volume.extend(2)
    command("attach", "small", "cinder:data")
    assert command.json("extend", "small", volume.id)["size"] == 2 << 30
    command("detach", "small", volume.id)
