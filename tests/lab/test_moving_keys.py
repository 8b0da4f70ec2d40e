"""A guest goes to another host, which has its disk's key before: two libvirtds, and QEMU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import libvirt
import pytest
import test_moving_libvirt
from libvirt_rig import until
from test_moving_libvirt import LibvirtMovingRig

from lab import host
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


@pytest.fixture
def tgt(lab: Any) -> Iterator[Tgt]:
    try:
        server = Tgt()
    except Missing as e:
        missing(str(e))
    with server:
        server.listen(f"{OUTSIDE}:3260")
        yield server


def sealed(rig: LibvirtMovingRig, tgt: Tgt) -> Locked:
    path = rig.directory / "a.luks"
    luks_image(path, KEY, 1 << 20)
    path.chmod(0o666)
    source = ImageFile(path, "luks", relabel=False)
    return Locked(source, lambda to, guest: to.give_key(guest, VOLUME, Secret(KEY)))


def chap(rig: LibvirtMovingRig, tgt: Tgt) -> Locked:
    tgt.export("one", 1 << 20)
    login = NetworkLogin(USER, Secret(PASSWORD))
    source = NetworkDisk("iscsi", f"{iqn('one')}/1", (f"{OUTSIDE}:3260",), login=login)
    return Locked(source, lambda to, guest: to.give_login(guest, VOLUME, source))


def secrets(node: Node) -> list[str]:
    connection = libvirt.open(node.libvirt_uri)
    found = [each.usageID() for each in connection.listAllSecrets()]
    connection.close()
    return found


@pytest.mark.parametrize("make", [sealed, chap])
def test_it_is_sent_once_the_other_host_has_the_key(
    rig: LibvirtMovingRig, tgt: Tgt, make: Callable[[LibvirtMovingRig, Tgt], Locked]
) -> None:
    locked, guest, here, there = make(rig, tgt), rig.new_guest(), rig.here, rig.there
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
    assert KEY not in definition
    assert PASSWORD.encode() not in definition
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
    assert PASSWORD not in host.command_lines()
    until(lambda: make is sealed or not tgt.sessions("one"))
