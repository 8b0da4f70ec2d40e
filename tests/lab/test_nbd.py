"""NBD without stand-ins: nbdkit and qemu-nbd, libvirt and QEMU, a guest."""

from __future__ import annotations

import shutil
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from libvirt_rig import CONFIG, LIVE, until
from scene import halves

from lab import host
from lab.command import Moorline
from lab.guest import Guest, pattern
from lab.nbd.gate import Gate
from lab.nbd.servers import Missing, Server, certificates, demand
from moorline import wiring
from moorline.errors import MoorlineError, Uncertain
from moorline.hypervisors.libvirt import hypervisor
from tests.support.missing import missing

SIZE = 2 << 20


class Scene:
    """A state directory, servers, and what can be witnessed of them."""

    def __init__(self, moorline: Moorline, stack: ExitStack) -> None:
        assert moorline.state is not None
        self.directory = moorline.state.parent
        settings = self.directory / "moorline.conf"
        settings.write_text(f"[libvirt]\nnbd_tls_certificates = {host.NBD_CERTIFICATES}\n")
        self.moorline = replace(moorline, after=("--config-file", str(settings)))
        self._stack = stack

    def server(self, export: str | None = "one", **more: Any) -> Server:
        """A server of a new file."""
        file = self.directory / f"{uuid.uuid4()}.raw"
        with file.open("wb") as new:
            new.truncate(SIZE)
        return self._stack.enter_context(Server(file, export, **more))

    def attach(self, guest: str, url: str, *more: str, code: int = 0) -> str:
        """Attach what is called so, by the id ``v``."""
        return self.moorline("attach", guest, url, "--volume", "v", *more, code=code).stderr

    def detach(self, guest: str, code: int = 0) -> str:
        return self.moorline("detach", guest, "v", code=code).stderr

    def seen(self) -> dict[str, str]:
        return {row["volume"]: row["seen"] for row in self.moorline.json("list")}


@pytest.fixture
def scene(moorline: Moorline, leftovers_check: None) -> Iterator[Scene]:
    try:
        demand()
    except Missing as e:
        missing(str(e))
    with ExitStack() as stack:
        yield Scene(moorline, stack)


def plugged(guest: Guest) -> list[ET.Element]:
    """The disks of a guest that servers have, whoever plugged them."""
    xml = ET.fromstring(guest.domain.XMLDesc())
    return xml.findall("devices/disk[@type='network']")


def test_a_guest_writes_to_an_export(scene: Scene, guest: Guest, second_guest: Guest) -> None:
    server = scene.server()
    scene.attach(guest.name, server.url())
    guest.write("v", "over the wire")
    assert server.bytes() == pattern("over the wire")
    (row,) = scene.moorline.json("list")
    assert (row["seen"], row["storage"]) == ("attached", server.url())
    (shown,) = scene.moorline.json("show", "v")
    assert shown["source"]["type"] == "NetworkDisk"
    assert shown["used_by"] == [guest.name]
    disks = {each["disk"]["mark"]: each for each in scene.moorline.json("disks", guest.name)}
    assert (disks["v"]["disk"]["path"], disks["v"]["whose"]) == (server.url(), "ours")
    refused = scene.moorline("attach", second_guest.name, server.url(), "--volume", "w", code=3)
    assert "same storage is known under another id" in refused.stderr
    assert scene.moorline.json("doctor")["findings"] == []
    refused = scene.moorline("extend", guest.name, "v", "8M", code=3)
    assert "no new size" in refused.stderr
    scene.detach(guest.name)
    assert plugged(guest) == []
    assert scene.seen() == {}


def test_what_a_stranger_s_guest_has_is_refused(
    scene: Scene, guest: Guest, second_guest: Guest
) -> None:
    """NBD has no locks: nothing else would keep two writers apart."""
    server = scene.server(None)
    address, _, port = server.server.partition(":")
    disk = (
        "<disk type='network' device='disk'><driver name='qemu' type='raw'/>"
        f"<source protocol='nbd' name='any'><host name='{address}' port='{port}'/></source>"
        "<target dev='vdx' bus='virtio'/></disk>"
    )
    second_guest.domain.attachDeviceFlags(disk, LIVE)
    try:
        refused = scene.attach(guest.name, server.url(), code=3)
        assert f"{second_guest.name} has" in refused
        refused = scene.attach(guest.name, server.url("any"), code=3)
        assert "gives the same whatever the export is called" in refused
        assert plugged(guest) == []
        assert scene.seen() == {}
    finally:
        second_guest.domain.detachDeviceFlags(disk, LIVE)
        until(lambda: not plugged(second_guest))
    scene.attach(guest.name, server.url())
    scene.detach(guest.name)


def test_by_tls_with_the_certificates_that_libvirt_has(scene: Scene, guest: Guest) -> None:
    pki = certificates(scene.directory / "pki")
    for file in pki.iterdir():
        shutil.copy(file, host.NBD_CERTIFICATES)
    try:
        server = scene.server(None, tls=pki)
        scene.attach(guest.name, server.url())
        guest.write("v", "in secret")
        assert server.bytes() == pattern("in secret")
        scene.detach(guest.name)
        refused = scene.attach(guest.name, server.url().replace("nbds:", "nbd:"), code=3)
        assert "nbds://" in refused
    finally:
        for file in host.NBD_CERTIFICATES.iterdir():
            file.unlink()


def test_by_a_socket_and_what_nobody_may_write_to(scene: Scene, guest: Guest) -> None:
    server = scene.server("two", at=scene.directory / "s", readonly=True)
    assert "--read-only" in scene.attach(guest.name, server.url(), code=3)
    scene.attach(guest.name, server.url(), "--read-only")
    assert guest.digest("v")
    scene.detach(guest.name)


def test_a_disk_that_was_there_is_adopted(scene: Scene, stopped: Any) -> None:
    server = scene.server()
    address, _, port = server.server.partition(":")
    stopped.attachDeviceFlags(
        "<disk type='network' device='disk'><driver name='qemu' type='raw'/>"
        f"<source protocol='nbd' name='one'><host name='{address}' port='{port}'/></source>"
        "<target dev='vdx' bus='virtio'/></disk>",
        CONFIG,
    )
    scene.moorline("adopt", stopped.name(), server.url(), "--volume", "v")
    assert scene.seen() == {"v": "attached"}
    scene.detach(stopped.name())
    assert halves(stopped, "v") == (False, False)


def test_a_guest_that_is_started_again_has_it(scene: Scene, stopped: Any) -> None:
    server = scene.server()
    scene.attach(stopped.name(), server.url())
    server.kill()
    refused = scene.moorline("start", stopped.name(), code=5)
    assert "was not asked" in refused.stderr
    server.start()
    scene.moorline("start", stopped.name())
    try:
        assert halves(stopped, "v") == (True, True)
        assert scene.seen() == {"v": "attached"}
    finally:
        stopped.destroy()
    scene.detach(stopped.name())


def test_a_server_that_goes_away_and_comes_back(scene: Scene, guest: Guest) -> None:
    """An error at once, and the next request works: QEMU connects anew by itself."""
    server = scene.server()
    scene.attach(guest.name, server.url())
    server.kill()
    device = guest.wait_for("v")
    write = f"dd if=/dev/zero of={device} bs=4k count=1 oflag=direct"
    assert guest.agent.run(write).code != 0
    assert scene.seen() == {"v": "attached"}
    server.start()
    until(lambda: guest.agent.run(write).code == 0)
    guest.write("v", "after")
    assert server.bytes() == pattern("after")
    server.kill()
    scene.detach(guest.name)
    assert plugged(guest) == []


def test_a_server_that_hangs_is_not_given_to_a_guest(scene: Scene, guest: Guest) -> None:
    server, well = scene.server(), scene.server()
    server.stop()
    try:
        said = scene.attach(guest.name, server.url(), "--timeout", "1", code=6)
        assert "did not answer within" in said
        guest.agent.check("true", 20)
        assert scene.seen() == {"v": "connected"}
        scene.moorline("attach", guest.name, well.url(), "--volume", "w")
        scene.moorline("detach", guest.name, "w")
    finally:
        server.go_on()
    scene.attach(guest.name, server.url())
    server.stop()
    try:
        assert scene.seen() == {"v": "attached"}
        guest.agent.check("true", 20)
    finally:
        server.go_on()
    scene.detach(guest.name)
    assert scene.seen() == {}


@pytest.mark.parametrize("then", ["detach", "attach"])
def test_what_comes_late_is_what_is_wanted_by_then(
    scene: Scene, guest: Guest, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    """The server hangs between its answer and QEMU, which cannot be called off any more."""
    monkeypatch.setattr(hypervisor.Libvirt.__init__, "__kwdefaults__", _soon())
    server = scene.server("one", at=scene.directory / "s")
    with Gate(scene.directory / "gate", scene.directory / "s") as gate:
        url = f"nbd+unix:///one?socket={gate.at}"
        with wiring.open_host(wiring.settings(state_dir=scene.moorline.state)) as owner:
            attachments = owner.attachments
            gate.shut()
            with pytest.raises(Uncertain):
                attachments.attach(guest.name, url, volume="v", timeout=0)
            assert gate.waits.is_set()
            if then == "detach":
                with suppress(MoorlineError):  # nothing of the guest can be told yet
                    attachments.detach(guest.name, "v", timeout=0)
            threading.Timer(0.5, gate.open).start()
            if then == "detach":
                attachments.detach(guest.name, "v", timeout=60)
                assert attachments.list() == []
                assert plugged(guest) == []
                return
            attachments.attach(guest.name, url, volume="v", timeout=60)
            guest.write("v", "late")
            assert server.bytes() == pattern("late")
            assert len(plugged(guest)) == 1
            attachments.detach(guest.name, "v")


def _soon() -> dict[str, Any]:
    """libvirt's calls are given up sooner: QEMU hangs for as long as is waited for it."""
    defaults = dict(hypervisor.Libvirt.__init__.__kwdefaults__ or {})
    return {**defaults, "deadline": 3.0}
