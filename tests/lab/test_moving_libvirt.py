"""Libvirt's guests go from host to host: the contract, on two hosts, and what is libvirt's own."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from xml.etree import ElementTree as ET

import libvirt
import pytest
from libvirt_rig import small_xml, until

from lab import host
from lab.fleet.node import Node, Nodes
from moorline.errors import Failed, MoorlineError, Refused, Uncertain
from moorline.host.linux import Linux
from moorline.hypervisors.libvirt import moving
from moorline.hypervisors.libvirt.migration import Migration
from moorline.hypervisors.libvirt.moving import MovingLibvirt
from moorline.hypervisors.libvirt.qemu_open_files import opened
from moorline.model import Caching, DiskOptions, GuestId, ImageFile
from moorline.ports.moving import MovingHypervisor, Presence
from moorline.testing.contracts.moving import (
    VOLUME,
    MovingContract,
    MovingRig,
    seen,
    send,
    stays,
)

DISK = 1 << 20


class LibvirtMovingRig(MovingRig):
    def __init__(self, nodes: Sequence[Node], directory: Path) -> None:
        self.directory = directory
        self.nodes = nodes
        self._numbers = count()
        self.host = Linux()
        self.how = Migration(
            f"qemu+unix:///system?socket={nodes[0].directory.parent}/%s/libvirt/libvirt-sock"
        )
        self.there_name = nodes[1].name
        self.here, self.there = (self.mover(node) for node in nodes)

    def mover(self, node: Node) -> MovingLibvirt:
        """A new process's hypervisor on *node*."""
        return MovingLibvirt(
            node.libvirt_uri, deadline=20, migration=lambda: self.how, run=self.host.run
        )

    def new_guest(self, metadata: str = "") -> GuestId:
        xml = ET.fromstring(small_xml("q35", 4, ""))
        name = xml.find("name")
        assert name is not None
        name.text = f"moves{next(self._numbers)}"
        if metadata:
            xml.append(ET.fromstring(f"<metadata>{metadata}</metadata>"))
        connection = libvirt.open(self.nodes[0].libvirt_uri)
        domain = connection.defineXML(ET.tostring(xml, encoding="unicode"))
        domain.create()
        guest = GuestId(domain.UUIDString())
        connection.close()
        return guest

    def new_source(self, *, relabel: bool = False) -> ImageFile:
        path = self.directory / f"{next(self._numbers)}.raw"
        path.touch()
        os.truncate(path, DISK)
        os.chown(path, host.qemu_user(), -1)
        return ImageFile(path, "raw", Caching.DIRECT, relabel=relabel)

    def runs(self, hypervisor: MovingHypervisor, guest: GuestId) -> bool:
        assert isinstance(hypervisor, MovingLibvirt)
        node = self.nodes[0 if hypervisor is self.here else 1]
        connection = libvirt.open(node.libvirt_uri)
        state = connection.lookupByUUIDString(guest).state()[0]
        connection.close()
        return bool(state == libvirt.VIR_DOMAIN_RUNNING)

    def tear_down(self) -> None:
        for node in self.nodes:
            connection = libvirt.open(node.libvirt_uri)
            for domain in connection.listAllDomains():
                if domain.isActive():
                    domain.destroy()
                if domain.isPersistent():
                    domain.undefine()
            connection.close()
        self.host.close()
        self.here.close()  # type: ignore[attr-defined]
        self.there.close()  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def nodes(lab: Path) -> Iterator[Sequence[Node]]:
    libvirt.registerErrorHandler(lambda *_: None, None)
    with tempfile.TemporaryDirectory(dir=lab, prefix="nodes-") as directory:
        Path(directory).chmod(0o755)
        with Nodes(Path(directory), 2) as nodes:
            yield nodes


@pytest.fixture
def rig(nodes: Sequence[Node], lab: Path) -> Iterator[LibvirtMovingRig]:
    with tempfile.TemporaryDirectory(dir=lab, prefix="disks-") as directory:
        Path(directory).chmod(0o755)
        rig = LibvirtMovingRig(nodes, Path(directory))
        yield rig
        rig.tear_down()


class TestLibvirtMoves(MovingContract):
    @pytest.fixture
    def rig(self, rig: LibvirtMovingRig) -> LibvirtMovingRig:
        return rig


def test_the_files_of_a_copy_that_is_stopped_keep_their_owner(rig: LibvirtMovingRig) -> None:
    """Its host was given up, and comes back: the guest runs elsewhere, with the same file."""
    guest = rig.new_guest()
    source = rig.new_source(relabel=True)
    os.chown(source.path, 0, 0)  # which libvirt notes, and gives it back to
    rig.here.attach(guest, VOLUME, source, DiskOptions())
    owner = source.path.stat().st_uid
    assert owner == host.qemu_user()
    rig.here.stop(guest)
    assert seen(rig.here, guest) is Presence.STOPPED
    assert source.path.stat().st_uid == owner


def test_a_guest_that_a_person_paused_stays_paused(rig: LibvirtMovingRig) -> None:
    guest = rig.new_guest()
    connection = libvirt.open(rig.nodes[0].libvirt_uri)
    connection.lookupByUUIDString(guest).suspend()
    connection.close()
    assert seen(rig.here, guest) is Presence.RUNNING
    send(rig, guest)
    assert seen(rig.there, guest) is Presence.ARRIVED
    rig.there.resume(guest)
    assert seen(rig.there, guest) is Presence.RUNNING
    assert not rig.runs(rig.there, guest)


def test_a_disk_of_which_nobody_says_that_it_is_shared_keeps_its_guest(
    rig: LibvirtMovingRig,
) -> None:
    guest = rig.new_guest()
    rig.here.attach(guest, VOLUME, rig.new_source(relabel=True), DiskOptions())
    stays(rig, guest, lambda: rig.here.send(guest, rig.there_name), Refused)
    assert seen(rig.there, guest) is Presence.ABSENT


def replace(path: Path) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(bytes(DISK))
    new.rename(path)


def move(path: Path) -> None:
    path.rename(path.with_suffix(".moved"))


@pytest.mark.parametrize("change", [replace, move, Path.unlink])
def test_a_file_that_was_changed_under_its_guest_keeps_it(
    rig: LibvirtMovingRig, change: Callable[[Path], object]
) -> None:
    """The other host's QEMU would open what lies at the path, and the guest's data was gone."""
    guest, source = rig.new_guest(), rig.new_source()
    rig.here.attach(guest, VOLUME, source, DiskOptions())
    change(source.path)
    name = rig.here.find(guest).name
    with pytest.raises(Refused, match=f"{name} stays.* vd.: .*{source.path}"):
        rig.here.send(guest, rig.there_name)
    assert seen(rig.there, guest) is Presence.ABSENT
    assert rig.runs(rig.here, guest)
    if change is move:  # back: then it is the guest's again
        source.path.with_suffix(".moved").rename(source.path)
        send(rig, guest)
        assert seen(rig.there, guest) is Presence.ARRIVED


def snapshot(rig: LibvirtMovingRig, guest: GuestId, source: ImageFile) -> Path:
    """An external one, as ``virsh snapshot-create-as --disk-only --no-metadata`` makes."""
    overlay = source.path.with_suffix(".overlay")
    words = ["-f", "qcow2", "-b", str(source.path), "-F", "raw", str(overlay)]
    subprocess.run(["qemu-img", "create", "-q", *words], check=True)
    os.chown(overlay, host.qemu_user(), -1)
    kept = "<seclabel model='dac' relabel='no'/>"
    disk = f"<disk name='vda'><source file='{overlay}'>{kept}</source></disk>"
    xml = f"<domainsnapshot><name>s</name><disks>{disk}</disks></domainsnapshot>"
    flags = libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
    flags |= libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
    flags |= libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT
    connection = libvirt.open(rig.nodes[0].libvirt_uri)
    domain = connection.lookupByUUIDString(guest)
    domain.snapshotCreateXML(xml, flags)
    connection.close()
    return overlay


def test_what_a_guest_writes_above_a_snapshot_goes_along(rig: LibvirtMovingRig) -> None:
    guest, source = rig.new_guest(), rig.new_source()
    rig.here.attach(guest, VOLUME, source, DiskOptions())
    overlay = snapshot(rig, guest, source)
    send(rig, guest)
    has = opened(guest, "of no pid file")
    assert has is not None
    assert {str(overlay), str(source.path)} <= has


def test_a_file_that_was_changed_beneath_a_snapshot_keeps_its_guest(rig: LibvirtMovingRig) -> None:
    guest, source = rig.new_guest(), rig.new_source()
    rig.here.attach(guest, VOLUME, source, DiskOptions())
    snapshot(rig, guest, source)
    replace(source.path)
    with pytest.raises(Refused, match=f" stays.* vd.: .*{source.path}"):
        rig.here.send(guest, rig.there_name)
    assert seen(rig.there, guest) is Presence.ABSENT


def test_a_guest_of_nova_is_novas(rig: LibvirtMovingRig) -> None:
    nova = '<nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.1"/>'
    guest = rig.new_guest(metadata=nova)
    with pytest.raises(Refused, match="Nova"):
        rig.here.send(guest, rig.there_name)
    with pytest.raises(Refused, match="Nova"):
        rig.here.present()


def test_what_libvirtd_forgets_when_it_is_killed_is_not_needed(rig: LibvirtMovingRig) -> None:
    guest = rig.new_guest()
    send(rig, guest)
    rig.nodes[1].kill_libvirtd()
    rig.nodes[1].start_libvirtd()
    assert seen(rig.there, guest) is Presence.ARRIVED
    rig.there.resume(guest)
    assert rig.runs(rig.there, guest)


def test_a_guest_on_its_way_is_awaited_by_whoever_asks(
    rig: LibvirtMovingRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by a process that did not begin it: of that one nothing is left but libvirt's job."""
    monkeypatch.setattr(moving, "SEND_SECONDS", 0.2)
    guest = rig.new_guest()
    with pytest.raises(Uncertain):
        rig.here.send(guest, rig.there_name)
    assert seen(rig.here, guest) is Presence.RUNNING
    other = rig.mover(rig.nodes[0])
    end = time.monotonic() + 60
    while seen(rig.here, guest) is not Presence.ABSENT:
        assert time.monotonic() < end
        try:
            other.send(guest, rig.there_name)
        except Uncertain:
            continue
    other.close()
    assert seen(rig.there, guest) is Presence.ARRIVED


def test_a_migration_that_takes_too_long_is_ended(rig: LibvirtMovingRig) -> None:
    """libvirt counts from 1 MiB/s: the devices' memory alone takes longer than a second."""
    guest = rig.new_guest()
    rig.how = dataclasses.replace(rig.how, bandwidth=1, timeout=1)
    stays(rig, guest, lambda: send(rig, guest), Failed)
    assert seen(rig.there, guest) is Presence.ABSENT


def test_a_migration_that_takes_too_long_is_brought_to_its_end(rig: LibvirtMovingRig) -> None:
    guest = rig.new_guest()
    rig.how = dataclasses.replace(rig.how, bandwidth=10, timeout=1, force_complete=True)
    send(rig, guest)
    rig.there.resume(guest)
    assert rig.runs(rig.there, guest)


@pytest.mark.parametrize("whose", [0, 1], ids=["source", "destination"])
def test_libvirtd_is_killed_while_a_guest_is_on_its_way(rig: LibvirtMovingRig, whose: int) -> None:
    """It runs on where it was, and can be sent again."""
    guest = rig.new_guest()
    rig.how = dataclasses.replace(rig.how, bandwidth=1)
    result: list[BaseException] = []

    def begin() -> None:
        try:
            rig.here.send(guest, rig.there_name)
        except MoorlineError as e:
            result.append(e)

    thread = threading.Thread(target=begin)
    thread.start()
    until(lambda: seen(rig.there, guest) is Presence.INCOMING)
    rig.nodes[whose].kill_libvirtd()
    rig.nodes[whose].start_libvirtd()
    thread.join(60)
    expected = (Uncertain,) if whose == 0 else (Failed, Uncertain)
    assert isinstance(result[0], expected), result
    until(lambda: seen(rig.here, guest) is Presence.RUNNING and rig.runs(rig.here, guest))
    # libvirt may leave what came of the copy: while it is there, no other comes.
    if seen(rig.there, guest) is not Presence.ABSENT:
        stays(rig, guest, lambda: send(rig, guest), Failed)
        rig.there.stop(guest)
    until(lambda: seen(rig.there, guest) is Presence.ABSENT)
    rig.how = dataclasses.replace(rig.how, bandwidth=0)
    send(rig, guest)
    rig.there.resume(guest)
    assert rig.runs(rig.there, guest)
