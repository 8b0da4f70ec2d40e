"""Images of Ceph, without stand-ins: a cluster, libvirt's secrets, a guest. `make test-rbd`."""

from __future__ import annotations

import json
import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from libvirt_rig import small_xml, until
from scene import gone_at_the_end

from lab import host
from lab.ceph.cluster import HOST, MONITOR, Ceph, Missing
from lab.command import Moorline
from lab.guest import Guest, pattern
from moorline.backends.rbd import Rbd
from moorline.errors import Failed, Refused, Uncertain
from moorline.host.linux import Linux
from tests.support.missing import missing

libvirt = pytest.importorskip("libvirt")

SIZE = 8 << 20
OTHER_KEY = "AQAtIQ5ra8wvIRAAe9IS9GwUd9qVRgEt9ik2gA=="


@pytest.fixture(scope="module")
def ceph(lab: Path) -> Iterator[Ceph]:
    if not os.environ.get("MOORLINE_CEPH"):
        pytest.skip("it takes a cluster of Ceph: run `make test-rbd`")
    try:
        cluster = Ceph()
    except Missing as e:
        missing(str(e))
    with cluster:
        yield cluster


@pytest.fixture(autouse=True)
def path(ceph: Ceph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{ceph.commands}:{os.environ['PATH']}")


class Scene:
    """A cluster, a state directory, and witnesses of what becomes of them."""

    def __init__(self, moorline: Moorline, ceph: Ceph, virt: Any) -> None:
        self.moorline = moorline
        self.ceph = ceph
        self._virt = virt
        assert moorline.state is not None
        self._state = moorline.state

    def volume(self) -> str:
        """A new volume's id, which is also its image's name."""
        id = str(uuid.uuid4())
        self.ceph.image(id, SIZE)
        return id

    def write(self, id: str, **more: Any) -> Path:
        """The connection of a volume, in a file."""
        file = self._state.parent / f"{id}.json"
        name = more.pop("name", f"vols/{id}")
        file.write_text(json.dumps(self.ceph.connection(name, **more)))
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
        return self.ceph.content(f"vols/{id}")

    def watchers(self, id: str) -> list[str]:
        return self.ceph.watchers(f"vols/{id}")

    def is_clean(self) -> bool:
        return not self.seen() and not self.secrets()


@pytest.fixture
def scene(ceph: Ceph, leftovers_check: None, moorline: Moorline, libvirt_conn: Any) -> Scene:
    return Scene(moorline, ceph, libvirt_conn)


@pytest.fixture
def backend(ceph: Ceph) -> Iterator[Rbd]:
    linux = Linux()
    yield Rbd(linux, deadline=60)
    linux.close()


def test_what_a_real_cluster_says_of_its_images(ceph: Ceph, backend: Rbd) -> None:
    one = ceph.image("one", SIZE)
    told = json.loads(ceph.admin("rbd", "info", one, "--format", "json"))

    def verify(name: str = one, **more: Any) -> Any:
        return backend.verify(backend.parse(ceph.connection(name, **more)))

    assert verify().opened == ()
    assert verify(fsid=ceph.fsid, image_id=told["id"], size=0)
    for wrong in ({"image_id": "1"}, {"fsid": str(uuid.uuid4())}, {"size": 1}):
        with pytest.raises(Refused):
            verify(**wrong)
    for wrong in ({"auth_key": OTHER_KEY}, {"auth_username": "nobody"}):
        with pytest.raises(Refused, match="lets nobody in by this user and key") as refused:
            verify(**wrong)
        assert OTHER_KEY not in str(refused.value)
    with pytest.raises(Refused, match="lets nobody in so"):
        verify(auth_enabled=False)
    for absent in ("vols/none", "none/one", f"{one}@none"):
        with pytest.raises(Refused, match="no such image"):
            verify(absent)
    with pytest.raises(Failed, match="was not asked"):
        verify(hosts=["nohost.invalid"])
    assert verify(hosts=["127.0.0.9", HOST], ports=["6789", "6789"])
    assert verify(ports=["3300"])
    ceph.admin("rbd", "snap", "create", f"{one}@s1")
    ceph.admin("rbd", "snap", "protect", f"{one}@s1")
    ceph.admin("rbd", "clone", f"{one}@s1", "vols/clone")
    assert verify(f"{one}@s1").readonly
    assert not verify("vols/clone").readonly
    ceph.admin("rbd", "lock", "add", "vols/clone", "mine")
    with pytest.raises(Failed, match="is locked by"):
        verify("vols/clone")


def test_a_cluster_that_hangs_is_uncertain(ceph: Ceph, backend: Rbd) -> None:
    image = backend.parse(ceph.connection(ceph.image("hung", SIZE)))
    hasty = Rbd(Linux(), deadline=1)
    away = hasty.parse(ceph.connection("vols/hung", hosts=["127.0.0.9"]))
    with pytest.raises(Uncertain, match="within 1 s"):
        hasty.verify(away)
    for program in ("ceph-osd", "ceph-mon"):
        ceph.stop(program)
        try:
            with pytest.raises(Uncertain, match="within 1 s"):
                hasty.verify(image)
        finally:
            ceph.resume(program)
        backend.verify(image)
    ceph.kill_monitor()
    try:
        with pytest.raises(Uncertain, match="within 1 s"):
            hasty.verify(image)
    finally:
        ceph.start_monitor()
    backend.verify(image)


def test_a_guest_writes_to_the_image(scene: Scene, guest: Guest, second_guest: Guest) -> None:
    id = scene.volume()
    scene.attach(guest.name, id)
    assert scene.seen() == {id: "attached"}
    guest.write(id, "over the wire")
    assert scene.stored(id) == pattern("over the wire")
    assert len(scene.watchers(id)) == 1
    for told in (guest.domain.XMLDesc(1), host.command_lines(), scene.moorline("show", id).stdout):
        assert scene.ceph.key not in told
    (usage,) = scene.secrets()
    assert id in usage
    scene.attach(guest.name, id)  # its own watcher is nobody else
    other = f"rbd://{MONITOR}/vols/{id}"
    refused = scene.moorline("attach", second_guest.name, other, code=3).stderr
    assert guest.name in refused
    scene.moorline("detach", guest.name, id)
    assert scene.is_clean()
    until(lambda: not scene.watchers(id))


def test_who_may_not_have_it_gets_nothing(scene: Scene, guest: Guest) -> None:
    id = scene.volume()
    refused = scene.attach(guest.name, id, code=3, auth_key=OTHER_KEY)
    assert "lets nobody in" in refused
    assert OTHER_KEY not in refused
    assert scene.is_clean()
    assert not guest.disks()


def test_what_somebody_else_has_open_is_given_to_no_guest(scene: Scene, guest: Guest) -> None:
    """By a client that is no guest of this host's, as one of another host would be."""
    id = scene.volume()
    with scene.ceph.opened(f"vols/{id}"):
        until(lambda: scene.watchers(id))
        waits = scene.attach(guest.name, id, "--timeout", "1", code=5)
        assert f"somebody else has rbd:vols/{id} open: " in waits
        assert not guest.disks()
    until(lambda: not scene.watchers(id))
    scene.attach(guest.name, id)
    scene.moorline("detach", guest.name, id)
    assert scene.is_clean()


def test_a_snapshot_is_read_by_two(scene: Scene, guest: Guest, second_guest: Guest) -> None:
    id = scene.volume()
    scene.attach(guest.name, id)
    guest.write(id, "before")
    scene.moorline("detach", guest.name, id)
    scene.ceph.admin("rbd", "snap", "create", f"vols/{id}@s1")
    snapshot = {"name": f"vols/{id}@s1"}
    refused = scene.attach(guest.name, id, code=3, **snapshot)
    assert "--read-only" in refused
    for each in (guest, second_guest):
        own = f"{each.name}-{id[:8]}"
        scene.attach(each.name, id, "--read-only", **snapshot, volume_id=own)
        each.wait_for(own)
        scene.moorline("detach", each.name, own)
    assert scene.is_clean()


def test_a_cluster_that_hangs_under_a_guest(scene: Scene, guest: Guest) -> None:
    """The guest waits, and what it wrote is written when the cluster answers."""
    id = scene.volume()
    scene.attach(guest.name, id)
    guest.wait_for(id)
    scene.ceph.stop()
    writing = threading.Thread(target=guest.write, args=(id, "after all"))
    try:
        writing.start()
        assert scene.seen() == {id: "attached"}  # nobody asks what does not answer
    finally:
        scene.ceph.resume()
    writing.join()
    assert scene.stored(id) == pattern("after all")
    scene.moorline("detach", guest.name, id)
    assert scene.is_clean()


def test_of_several_monitors_one_is_enough(scene: Scene, guest: Guest) -> None:
    id = scene.volume()
    away = {"hosts": ["127.0.0.9", HOST, "127.0.0.8"], "ports": ["6789"] * 3}
    scene.attach(guest.name, id, **away)
    guest.write(id, "by the second")
    assert scene.stored(id) == pattern("by the second")
    scene.moorline("detach", guest.name, id)
    assert scene.is_clean()


def test_a_guest_sees_that_its_image_grew(scene: Scene, guest: Guest) -> None:
    id = scene.volume()
    scene.attach(guest.name, id)
    device = guest.wait_for(id)
    scene.ceph.admin("rbd", "resize", f"vols/{id}", "--size", f"{2 * SIZE >> 20}M", "--no-progress")
    done = scene.moorline.json("extend", guest.name, id)
    assert (done["steps"], done["before"], done["size"]) == (["extend"], SIZE, 2 * SIZE)
    sectors = f"cat /sys/block/{device.rpartition('/')[2]}/size"
    until(lambda: guest.agent.check(sectors) == [str(2 * SIZE // 512)])
    assert scene.moorline.json("extend", guest.name, id)["steps"] == []
    scene.ceph.stop()
    try:
        waits = scene.moorline("extend", guest.name, id, "--timeout", "1", code=11).stderr
        assert "did not answer within" in waits
        assert guest.agent.check("echo alive", deadline=60) == ["alive"]
    finally:
        scene.ceph.resume()
    scene.moorline("detach", guest.name, id)
    assert scene.is_clean()


@pytest.mark.parametrize("program", ["ceph-osd", "ceph-mon"])
def test_a_guest_is_not_given_to_a_cluster_that_does_not_answer(
    scene: Scene, guest: Guest, program: str
) -> None:
    id = scene.volume()
    scene.ceph.stop(program)
    try:
        waits = scene.attach(guest.name, id, "--timeout", "1", code=6)
        assert "did not answer within" in waits
        assert guest.agent.check("echo alive", deadline=60) == ["alive"]
    finally:
        scene.ceph.resume(program)
    scene.attach(guest.name, id)
    guest.write(id, "late")
    assert scene.stored(id) == pattern("late")
    scene.moorline("detach", guest.name, id)
    assert scene.is_clean()


def test_what_is_typed_is_opened_by_the_key_of_the_host(scene: Scene, guest: Guest) -> None:
    id = scene.volume()
    keyrings = host.LAB / "keyrings"
    keyrings.mkdir()
    keyring = keyrings / "ceph.client.moor.keyring"
    keyring.write_text(f"[client.moor]\n\tkey = {scene.ceph.key}\n")
    settings = keyrings / "moorline.conf"
    settings.write_text(f"[libvirt]\nrbd_user = moor\nrbd_keyrings = {keyrings}\n")
    moorline = replace(scene.moorline, after=("--config-file", str(settings)))
    moorline("attach", guest.name, f"rbd://{HOST}/vols/{id}", "--volume", id)
    guest.write(id, "typed")
    assert scene.stored(id) == pattern("typed")
    moorline("detach", guest.name, id)
    assert scene.is_clean()


def test_a_stopped_guest_is_started_after_libvirtd_lost_the_key(scene: Scene) -> None:
    id = scene.volume()
    with closing(libvirt.open("qemu:///system")) as virt:
        domain = virt.defineXML(small_xml("q35", 6, "virtio-scsi"))
        name, guest = domain.name(), domain.UUIDString()
        scene.attach(name, id)
    host.kill_libvirtd()
    host.start_libvirtd()
    with closing(libvirt.open("qemu:///system")) as virt, gone_at_the_end(virt, guest):
        assert not virt.listAllSecrets()
        (row,) = scene.moorline.json("list")
        assert (row["seen"], row["next"]) == ("attached", "unlock")
        scene.moorline("start", name)
        assert scene.seen() == {id: "attached"}
        until(lambda: scene.watchers(id))
        virt.lookupByName(name).destroy()
        until(lambda: not scene.watchers(id))
        scene.moorline("detach", name, id)
        assert not scene.seen()
        assert not virt.listAllSecrets()
