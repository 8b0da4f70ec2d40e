"""A guest goes to another host, which has its disk's key before: two libvirtds, and QEMU."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import libvirt
import pytest
import test_moving_libvirt
from libvirt_rig import until
from test_moving_libvirt import LibvirtMovingRig

from lab import host
from lab.ceph.cluster import USER as POOL_USER
from lab.ceph.cluster import Ceph
from lab.ceph.software import Missing as MissingCeph
from lab.fleet.node import OUTSIDE, Node
from lab.tgt.target import PASSWORD, USER, Missing, Tgt, iqn
from moorline.errors import Failed
from moorline.model import DiskOptions, DiskSource, ImageFile, NetworkDisk
from moorline.network_disk import NetworkLogin
from moorline.ports.moving import Presence
from moorline.secret import Secret
from moorline.testing.contracts.moving import VOLUME, seen, send
from tests.support.luks_image import luks_image
from tests.support.missing import missing

KEY = "zwölf chars".encode()
nodes = test_moving_libvirt.nodes
rig = test_moving_libvirt.rig


@dataclass
class Locked:
    """A disk that takes a key or a password."""

    source: DiskSource
    give: Callable[[Any, Any], None]
    """Has a hypervisor know it, for a guest."""
    secret: str
    is_open: Callable[[], bool] = lambda: False
    """Whether its server has somebody who has it open."""


@pytest.fixture
def tgt(lab: Any) -> Iterator[Tgt]:
    try:
        server = Tgt()
    except Missing as e:
        missing(str(e))
    with server:
        server.listen(f"{OUTSIDE}:3260")
        yield server


@pytest.fixture
def sealed(rig: LibvirtMovingRig) -> Locked:
    path = rig.directory / "a.luks"
    luks_image(path, KEY, 1 << 20)
    path.chmod(0o666)
    source = ImageFile(path, "luks", relabel=False)
    return Locked(source, lambda to, guest: to.give_key(guest, VOLUME, Secret(KEY)), KEY.decode())


@pytest.fixture
def chap(tgt: Tgt) -> Locked:
    tgt.export("one", 1 << 20)
    login = NetworkLogin(USER, Secret(PASSWORD))
    source = NetworkDisk("iscsi", f"{iqn('one')}/1", (f"{OUTSIDE}:3260",), login=login)
    return Locked(source, _login(source), PASSWORD, lambda: bool(tgt.sessions("one")))


@pytest.fixture
def cephx(nodes: Sequence[Node]) -> Iterator[Locked]:
    if not os.environ.get("MOORLINE_CEPH"):
        pytest.skip("it takes a cluster of Ceph: run `make test-rbd`")
    try:
        cluster = Ceph(OUTSIDE)
    except MissingCeph as e:
        missing(str(e))
    with cluster:
        image = cluster.image("one", 1 << 20)
        login = NetworkLogin(POOL_USER, Secret(cluster.key))
        source = NetworkDisk("rbd", image, (cluster.monitor,), login=login)
        yield Locked(source, _login(source), cluster.key, lambda: bool(cluster.watchers(image)))


def _login(source: NetworkDisk) -> Callable[[Any, Any], None]:
    return lambda to, guest: to.give_login(guest, VOLUME, source)


def secrets(node: Node) -> list[str]:
    connection = libvirt.open(node.libvirt_uri)
    found = [each.usageID() for each in connection.listAllSecrets()]
    connection.close()
    return found


@pytest.mark.parametrize("kind", ["sealed", "chap", "cephx"])
def test_it_is_sent_once_the_other_host_has_the_key(
    rig: LibvirtMovingRig, kind: str, request: pytest.FixtureRequest
) -> None:
    locked: Locked = request.getfixturevalue(kind)
    guest, here, there = rig.new_guest(), rig.here, rig.there
    locked.give(here, guest)
    here.attach(guest, VOLUME, locked.source, DiskOptions(cache="none"))
    with pytest.raises(Failed, match=f"{rig.there_name} does not have the key of volume {VOLUME}"):
        send(rig, guest)
    assert rig.runs(here, guest)
    assert seen(there, guest) is Presence.ABSENT
    locked.give(there, guest)
    send(rig, guest)
    there.resume(guest)
    (disk,) = there.disks(guest).values()
    assert (disk.source, disk.locked) == (str(locked.source.path), False)
    # Its definition names it as well: it is started anew where it is now, and comes back, stopped.
    there.stop(guest)
    there.start(guest)
    assert rig.runs(there, guest)
    definition = there.definition(guest)
    assert locked.secret.encode() not in definition
    there.stop(guest)
    there.undefine(guest)
    here.define(guest, definition, {VOLUME})
    here.start(guest)
    assert rig.runs(here, guest)
    here.stop(guest)
    for each, node in zip((here, there), rig.nodes, strict=True):
        each.detach(guest, VOLUME)
        each.take_key(guest, VOLUME)
        each.take_login(guest, VOLUME)
        assert secrets(node) == []
    assert locked.secret not in host.command_lines()
    until(lambda: not locked.is_open())
