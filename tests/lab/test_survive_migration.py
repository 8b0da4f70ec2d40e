"""A guest whose disk was given anew goes to another host, and comes back, writing all the time."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest
from libvirt_rig import until
from scene import Scene
from survive_rig import RUNS, attached, end, goes_on, long, renew, tried_here

from lab import guest as guests
from lab import host
from lab.second_host import SecondHost

pytestmark = [tried_here, long]
MIGRATE = (
    libvirt.VIR_MIGRATE_LIVE
    | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
    | libvirt.VIR_MIGRATE_PERSIST_DEST
    | libvirt.VIR_MIGRATE_UNSAFE  # libvirt does not know that the lab's mounts are shared
)


@pytest.fixture
def directory(lab: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=lab, prefix="site-") as made:
        directory = Path(made)
        directory.chmod(0o755)
        for name in ("sockets", "channel"):
            (directory / name).mkdir()
            (directory / name).chmod(0o1777)
        (directory / "second").mkdir()
        yield directory


@pytest.fixture
def traveller(directory: Path, libvirt_conn: Any, leftovers_check: None) -> Iterator[guests.Guest]:
    (guest,) = guests.boot(libvirt_conn, ["moves"], host.images(), directory / "sockets")
    yield guest
    guests.remove(guest)


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_a_guest_goes_to_another_host_and_comes_back(
    survivors: Scene, traveller: guests.Guest, directory: Path, form: str
) -> None:
    scene, here = survivors, traveller.domain.connect()
    writers = attached(scene, traveller, "virtio", "scsi", form=form)
    renew(scene, traveller, writers)
    at = str(scene.mount_point())
    second = SecondHost(directory / "second", [directory / "sockets"])
    second.run("umount", at)
    second.run("mount.quobyte", scene.share.export, at)
    there = libvirt.open(second.uri)
    where = {"migrate_uri": f"unix://{directory}/channel/moves"}
    for to, sockets in (
        (there, directory / "second/own-1"),
        (here, directory / "sockets"),
    ):
        traveller.domain.migrate3(to, where, MIGRATE)
        traveller.agent.close()
        traveller.domain = to.lookupByName("moves")
        traveller.agent = guests.GuestAgent(sockets / "moves.agent")
        until(lambda: traveller.domain.state()[0] == RUNS)
        goes_on(writers)
    there.close()
    second.run("umount", at)
    second.close()
    renew(scene, traveller, writers)
    end(scene, traveller, writers, form)
