"""iSCSI by QEMU's own initiator, without stand-ins: tgt with CHAP, libvirt's secrets, a guest."""

from __future__ import annotations

import ctypes
import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from libvirt_rig import small_xml, until
from scene import gone_at_the_end, small_guest

from lab import host
from lab.command import Moorline
from lab.guest import Guest, pattern
from lab.tgt.target import PASSWORD, PORTAL, USER, Missing, Tgt, iqn
from moorline.backends import libiscsi
from moorline.backends.iscsi_qemu import IscsiQemu
from moorline.errors import Failed, Refused, Uncertain
from moorline.host.linux import Linux
from tests.support.missing import missing

libvirt = pytest.importorskip("libvirt")

SIZE = 4 << 20


def connection(name: str, **more: Any) -> dict[str, Any]:
    data = {
        "target_portal": PORTAL,
        "target_iqn": iqn(name),
        "target_lun": 1,
        "auth_method": "CHAP",
        "auth_username": USER,
        "auth_password": PASSWORD,
        "volume_id": name,
    }
    return {"driver_volume_type": "iscsi_qemu", "data": {**data, **more}}


class Scene:
    """A target, a state directory, and witnesses of what becomes of them."""

    def __init__(self, moorline: Moorline, tgt: Tgt, virt: Any) -> None:
        self.moorline = moorline
        self.tgt = tgt
        self._virt = virt
        assert moorline.state is not None
        self._state = moorline.state

    def volume(self) -> str:
        """A new volume's id, which is also its target's name and its file's."""
        id = str(uuid.uuid4())
        self.tgt.export(id, SIZE)
        return id

    def write(self, id: str, **more: Any) -> Path:
        """The connection of a volume, in a file."""
        file = self._state.parent / f"{id}.json"
        file.write_text(json.dumps(connection(id, **more)))
        return file

    def attach(self, guest: str, id: str, *words: str, code: int = 0, **more: Any) -> str:
        file = self.write(id, **more)
        said = self.moorline("attach", guest, "--connection", str(file), *words, code=code)
        return said.stderr

    def seen(self) -> dict[str, str]:
        return {row["volume"]: row["seen"] for row in self.moorline.json("list")}

    def secrets(self) -> list[str]:
        usages = [each.usageID() for each in self._virt.listAllSecrets()]
        return [usage for usage in usages if "moorline" in usage]

    def stored(self, id: str) -> bytes:
        return self.tgt.file(id).read_bytes()[:65536]

    def is_clean(self) -> bool:
        return not self.seen() and not self.secrets()


@pytest.fixture
def tgt(lab: Path, leftovers_check: None) -> Iterator[Tgt]:
    try:
        server = Tgt()
    except Missing as e:
        missing(str(e))
    with server:
        yield server


@pytest.fixture
def scene(moorline: Moorline, tgt: Tgt, libvirt_conn: Any) -> Scene:
    return Scene(moorline, tgt, libvirt_conn)


@pytest.fixture
def backend(tgt: Tgt) -> Iterator[IscsiQemu]:
    host = Linux()
    yield IscsiQemu(host, deadline=3)
    host.close()


def test_what_a_real_target_says_of_its_luns(tgt: Tgt, backend: IscsiQemu) -> None:
    tgt.export("one", SIZE)
    tgt.export("open", SIZE, chap=False)

    def verify(name: str, **more: Any) -> None:
        backend.verify(backend.parse(connection(name, **more)))

    no_login = {"auth_method": None}
    verify("one")
    verify("open", **no_login)
    verify("one", size=0)
    with pytest.raises(Refused, match=f"has {SIZE} bytes"):
        verify("one", size=1)
    for wrong in (no_login, {"auth_password": "another-word"}, {"auth_username": "nobody"}):
        with pytest.raises(Refused, match="lets nobody in by this user and password"):
            verify("one", **wrong)
    with pytest.raises(Refused, match="no such volume"):
        verify("none")
    with pytest.raises(Refused, match="no such volume"):
        verify("one", target_lun=5)
    with pytest.raises(Refused, match="is no disk"):
        verify("one", target_lun=0)  # the controller
    with pytest.raises(Failed, match="cannot be reached"):
        verify("one", target_portal="127.0.0.9:3260")
    tgt.stop()
    with pytest.raises(Uncertain, match="within 3 s"):
        verify("one")
    tgt.resume()
    verify("one")


def test_what_somebody_reserved_is_told(tgt: Tgt, backend: IscsiQemu) -> None:
    tgt.export("one", SIZE, chap=False)
    lun = backend.parse(connection("one", auth_method=None))
    backend.verify(lun)
    assert backend.ids(lun) == frozenset(), "names of tgt's are not unique in the world"
    with reserved("one"):
        assert "another machine keeps it" in backend.verify(lun).reserved
    assert backend.verify(lun).reserved == ""


@contextmanager
def reserved(name: str, user: str = "", password: str = "") -> Iterator[None]:
    """Another initiator keeps the LUN for itself (SPC-3)."""
    register, reserve, release, exclusive, key = 0, 1, 2, 3, (1).to_bytes(8, "big")
    where = {"portal": PORTAL, "target": iqn(name), "lun": 1, "user": user}
    where["password"] = password

    def ask(unit: Any, action: int, old: bytes, new: bytes) -> None:
        call = libiscsi._lib.iscsi_persistent_reserve_out_sync
        call.restype = ctypes.c_void_p
        keys = Keys(int.from_bytes(old, "big"), int.from_bytes(new, "big"))
        task = call(unit.context, 1, action, 0, exclusive, ctypes.byref(keys))
        assert task
        assert ctypes.c_int.from_address(task).value == 0, unit.error()

    with libiscsi._session({**where, "initiator": "iqn.2026-01.lab:other"}) as unit:
        ask(unit, register, bytes(8), key)
        ask(unit, reserve, key, bytes(8))
        yield
        ask(unit, release, key, bytes(8))
        ask(unit, register, key, bytes(8))


class Keys(ctypes.Structure):
    """libiscsi's scsi_persistent_reserve_out_basic."""

    _fields_ = [
        ("reservation_key", ctypes.c_uint64),
        ("service_action_reservation_key", ctypes.c_uint64),
        *((name, ctypes.c_uint8) for name in ("spec_i_pt", "all_tg_pt", "aptpl")),
    ]


def test_a_guest_writes_to_the_target(scene: Scene, guest: Guest, second_guest: Guest) -> None:
    id = scene.volume()
    scene.attach(guest.name, id)
    assert scene.seen() == {id: "attached"}
    guest.write(id, "over the wire")
    assert scene.stored(id) == pattern("over the wire")
    assert len(scene.tgt.sessions(id)) == 1
    for told in (guest.domain.XMLDesc(1), host.command_lines(), scene.moorline("show", id).stdout):
        assert PASSWORD not in told
    (usage,) = scene.secrets()
    assert id in usage
    other = f"iscsi_qemu://[::ffff:127.0.0.3]/{iqn(id)}/1"
    refused = scene.moorline("attach", second_guest.name, other, code=3).stderr
    assert "wanted on" in refused
    assert guest.name in refused
    scene.moorline("detach", guest.name, id)
    assert scene.is_clean()
    until(lambda: not scene.tgt.sessions(id))


def test_who_may_not_log_in_gets_nothing(scene: Scene, guest: Guest) -> None:
    id = scene.volume()
    refused = scene.attach(guest.name, id, code=3, auth_password="another-word")
    assert "lets nobody in" in refused
    assert "another-word" not in refused
    assert scene.is_clean()
    assert not guest.disks()


def test_a_disk_that_moorline_did_not_plug_is_in_the_way(
    scene: Scene, guest: Guest, second_guest: Guest
) -> None:
    scene.tgt.export("free", SIZE, chap=False)
    address, port = PORTAL.split(":")
    xml = (
        "<disk type='network' device='disk'><driver name='qemu' type='raw'/>"
        f"<source protocol='iscsi' name='{iqn('free')}/1'><host name='{address}' port='{port}'/>"
        "</source><target dev='vdq' bus='virtio'/></disk>"
    )
    guest.domain.attachDeviceFlags(xml, 1)
    try:
        refused = scene.attach(second_guest.name, "free", code=3, auth_method=None)
        assert guest.name in refused
        assert len(scene.tgt.sessions("free")) == 1
    finally:
        guest.domain.detachDeviceFlags(xml, 1)
        until(lambda: "vdq" not in guest.domain.XMLDesc())


def test_a_target_that_dies_and_comes_back(scene: Scene, guest: Guest) -> None:
    """QEMU waits for it, and logs in again by itself."""
    id = scene.volume()
    scene.attach(guest.name, id)
    guest.wait_for(id)
    scene.tgt.kill()
    assert scene.seen() == {id: "attached"}  # nobody asks what does not answer
    writing = threading.Thread(target=guest.write, args=(id, "after all"))
    writing.start()
    scene.tgt.start()
    writing.join()
    assert scene.stored(id) == pattern("after all")
    scene.moorline("detach", guest.name, id)
    assert scene.is_clean()


def test_a_guest_is_not_given_to_a_target_that_does_not_answer(scene: Scene, guest: Guest) -> None:
    id = scene.volume()
    scene.tgt.stop()
    try:
        waits = scene.attach(guest.name, id, "--timeout", "1", code=6)
        assert "did not answer within" in waits
        assert guest.agent.check("echo alive", deadline=60) == ["alive"]
    finally:
        scene.tgt.resume()
    scene.attach(guest.name, id)
    guest.write(id, "late")
    assert scene.stored(id) == pattern("late")
    scene.moorline("detach", guest.name, id)
    assert scene.is_clean()


def test_a_guest_has_a_lun_as_it_is_and_keeps_what_it_reserved(scene: Scene, guest: Guest) -> None:
    id = scene.volume()
    vendors = "cat /sys/block/sd*/device/vendor"
    scene.attach(guest.name, id, "--device", "lun")
    until(lambda: [each.strip() for each in guest.agent.run(vendors).lines] == ["IET"])
    for half in (0, 2):
        (found,) = ET.fromstring(guest.domain.XMLDesc(half)).iterfind("devices/disk[@device='lun']")
        assert found.find("serial") is None
    (name,) = guest.agent.check("cd /sys/block; ls -d sd*")
    write = f"yes lun | head -c 65536 | dd of=/dev/{name} iflag=fullblock bs=64k conv=fsync"
    guest.agent.check(write)
    assert scene.stored(id) == pattern("lun")
    assert scene.seen() == {id: "attached"}
    scene.moorline("detach", guest.name, id)
    with reserved(id, USER, PASSWORD):  # by itself, say: its target lets in whom it will
        waits = scene.attach(guest.name, id, "--timeout", "1", code=5)
        assert "another machine keeps it" in waits
        scene.moorline("detach", guest.name, id)
        scene.attach(guest.name, id, "--device", "lun")
        scene.moorline("detach", guest.name, id)
    assert scene.is_clean()


@pytest.fixture
def heal(request: pytest.FixtureRequest, moorline: Moorline) -> Iterator[str]:
    """How the password is given anew. libvirtd looks for hooks when it starts."""
    if request.param == "hook":
        moorline("hook", "install")
    yield request.param
    if request.param == "hook":
        moorline("hook", "uninstall")


@pytest.mark.parametrize("heal", ["start", "hook", "sweep"], indirect=True)
def test_a_guest_is_started_after_libvirtd_lost_the_password(scene: Scene, heal: str) -> None:
    id = scene.volume()
    with closing(libvirt.open("qemu:///system")) as virt:
        xml = ET.fromstring(small_xml("q35", 6, "virtio-scsi"))
        domain = virt.defineXML(ET.tostring(xml, encoding="unicode"))
        name, uuid = domain.name(), domain.UUIDString()
        scene.attach(name, id)
    host.kill_libvirtd()
    host.start_libvirtd()
    with closing(libvirt.open("qemu:///system")) as virt, gone_at_the_end(virt, uuid):
        assert not virt.listAllSecrets()
        (row,) = scene.moorline.json("list")
        assert (row["seen"], row["next"]) == ("attached", "unlock")
        domain = virt.lookupByName(name)
        if heal != "hook":
            with pytest.raises(libvirt.libvirtError, match="Secret not found"):
                domain.create()
        if heal == "start":
            scene.moorline("start", name)
        else:
            if heal == "sweep":
                scene.moorline("sweep")
            domain.create()
        (row,) = scene.moorline.json("list")
        assert (row["seen"], row["next"]) == ("attached", "nothing")
        until(lambda: scene.tgt.sessions(id))
        domain.destroy()
        until(lambda: not scene.tgt.sessions(id))
        scene.moorline("detach", name, id)
        assert not scene.seen()
        assert not virt.listAllSecrets()


def test_a_guest_that_lets_go_later_leaves_no_secret(scene: Scene, libvirt_conn: Any) -> None:
    """Whoever asked may be gone by then, and the next pass finds no disk to ask about."""
    id = scene.volume()
    with small_guest(libvirt_conn, "slow1", running=True) as domain:
        scene.attach(domain.name(), id)
        assert len(scene.secrets()) == 1
        scene.moorline("detach", domain.name(), id, "--timeout", "1", code=None)
        assert scene.seen()[id] != "attached"
        assert scene.secrets() == []
        domain.destroy()
        scene.moorline("detach", domain.name(), id)
        assert scene.is_clean()
