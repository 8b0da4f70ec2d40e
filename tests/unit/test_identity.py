"""One storage is one volume, however its connection spells it and wherever it is mounted."""

from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moorline.backends.mounted import GlusterFs, Nfs, Smbfs
from moorline.backends.mounter import Mounter
from moorline.backends.quobyte import Quobyte
from moorline.core.admission import Admission
from moorline.core.locks import Locks
from moorline.core.reconciler import Reconciler
from moorline.errors import Refused
from moorline.model import Attachment, DiskOptions, Level
from moorline.testing.toy_host import ToyHost
from moorline.testing.toys import ToyHypervisor
from tests.support.rig import Rig

OLD = uuid.UUID("6d6f6f72-6c69-5e65-8076-6f6c756d6573")
PLAIN = DiskOptions()


class Scene:
    """Attachments of mounted file systems, which nobody acts upon."""

    def __init__(self) -> None:
        self.rig = Rig("g1", "g2")
        self.configure("/mnt")

    def configure(self, base: str) -> None:
        host, at = ToyHost(), Path(base)
        backends = (
            Mounter(host, Quobyte(), at),
            Mounter(host, Nfs(), at),
            Mounter(host, Smbfs(), at),
            Mounter(host, GlusterFs(), at),
        )
        self.backends: dict[str, Any] = {backend.kind: backend for backend in backends}
        hypervisor = ToyHypervisor(self.rig.world)
        reconciler = Reconciler(self.rig.records, self.backends, hypervisor, Locks())
        self.admission = Admission(self.rig.records, reconciler, hypervisor)

    def attachment(
        self, guest: str, kind: str, export: str, options: DiskOptions = PLAIN, **more: Any
    ) -> Attachment:
        data = {"export": export, "name": "disk", "format": "raw", **more}
        connection = {"driver_volume_type": kind, "data": data}
        _, attachment = self.admission.make(guest, connection, None, None, Level.ATTACHED, options)
        return self.rig.records.put(attachment)


@pytest.fixture
def scene() -> Scene:
    return Scene()


ONE = [
    ("quobyte", "reg1,reg2/vol", "reg1/vol"),
    ("quobyte", "reg1,reg2/vol", "reg2,reg3/vol"),
    ("quobyte", "reg1,reg2/vol", "reg2,reg1/vol"),
    ("quobyte", "reg1/vol", "reg1:7861/vol"),
    ("quobyte", "reg1/vol", "REG1/vol"),
    ("quobyte", "[2001:db8::1]/vol", "[2001:0DB8:0:0::1]:7861/vol"),
    ("quobyte", "192.0.2.1/vol", "[::ffff:192.0.2.1]/vol"),
    ("quobyte", "[fd00::1]/vol", "[FD00:0:0::1],reg2/vol"),
    ("quobyte", "[::FFFF:C000:0201]:7861/vol", "192.0.2.1/vol"),
    ("nfs", "nas:/v", "NAS.:/v"),
    ("nfs", "[2001:db8::1]:/v", "[2001:DB8:0::1]:/v"),
    ("nfs", "192.0.2.1:/v", "[::ffff:192.0.2.1]:/v"),
    ("glusterfs", "g1.example:/vol", "G1.example.:vol"),
    ("smbfs", "//nas/Share", "//NAS./share"),
]
TWO = [
    ("quobyte", "reg1/vol", "reg1/vol2"),
    ("quobyte", "reg1/vol", "reg2/vol"),
    ("quobyte", "reg1/vol", "reg1:7862/vol"),
    ("nfs", "nas:/v", "nas:/w"),
    ("nfs", "nas:/v", "nas2:/v"),
    ("nfs", "nas:/v", "nas:/V"),
    ("glusterfs", "a:/vol", "a:/vol/dir"),
    ("smbfs", "//nas/share", "//nas/other"),
]


@pytest.mark.parametrize(("kind", "first", "second"), ONE)
def test_another_spelling_is_the_same_volume(
    scene: Scene, kind: str, first: str, second: str
) -> None:
    one = scene.attachment("g1", kind, first)
    with pytest.raises(Refused, match=f"volume {one.key.volume} is wanted on g1 already"):
        scene.attachment("g2", kind, second)
    with pytest.raises(Refused, match="under another id"):
        scene.attachment("g2", kind, second, volume_id="another")
    assert scene.rig.records.all() == [one]


@pytest.mark.parametrize(("kind", "first", "second"), ONE)
def test_both_who_share_it_have_one_volume(
    scene: Scene, kind: str, first: str, second: str
) -> None:
    shared = DiskOptions(shared=True)
    one = scene.attachment("g1", kind, first, shared)
    assert scene.attachment("g2", kind, second, shared).key.volume == one.key.volume


@pytest.mark.parametrize(("kind", "first", "second"), ONE)
def test_the_same_guest_gets_it_once(scene: Scene, kind: str, first: str, second: str) -> None:
    one = scene.attachment("g1", kind, first)
    data = {"export": second, "name": "disk", "format": "raw"}
    asked = {"driver_volume_type": kind, "data": data}
    if scene.admission.accept(asked, None).link == one.link:
        assert scene.attachment("g1", kind, second).key == one.key
    else:
        with pytest.raises(Refused, match=f"is connected at {one.link}"):
            scene.attachment("g1", kind, second)
    (row,) = scene.rig.records.all()
    assert row.link == one.link


@pytest.mark.parametrize(("kind", "first", "second"), TWO)
def test_another_share_is_another_volume(scene: Scene, kind: str, first: str, second: str) -> None:
    assert (
        scene.attachment("g1", kind, first).key.volume
        != scene.attachment("g2", kind, second).key.volume
    )


@pytest.mark.parametrize(("kind", "first", "second"), ONE)
def test_an_attachment_of_old_keeps_its_id_and_is_found(
    scene: Scene, kind: str, first: str, second: str
) -> None:
    """It was derived from where the share was mounted."""
    one = scene.attachment("g1", kind, first)
    scene.rig.records.forget(one)
    former = str(uuid.uuid5(OLD, f"{kind}\n{one.link}\ndisk"))
    key = one.key._replace(volume=type(one.key.volume)(former))
    old = scene.rig.records.put(replace(one, key=key, place=former, revision=0))
    assert scene.admission.of(former) == [old]
    again = scene.attachment("g1", kind, first)
    assert (again.key, again.place) == (old.key, old.place)
    with pytest.raises(Refused, match="is wanted on g1 already"):
        scene.attachment("g2", kind, second)


@pytest.mark.parametrize(
    ("kind", "whole", "directory"),
    [
        ("nfs", "nas:/srv", "NAS:/srv/fast"),
        ("nfs", "nas:/", "nas:/fast"),
        ("glusterfs", "g1:/vol", "g1:vol/fast"),
        ("smbfs", "//nas/Share", "//nas/share/fast"),
    ],
)
def test_a_directory_of_an_export_is_that_export(
    scene: Scene, kind: str, whole: str, directory: str
) -> None:
    """On the same host, for another guest, under another id, and in either order."""
    one = scene.attachment("g1", kind, whole, name="fast/disk")
    with pytest.raises(Refused, match=f"volume {one.key.volume} is wanted on g1 already"):
        scene.attachment("g2", kind, directory)
    with pytest.raises(Refused, match="under another id"):
        scene.attachment("g2", kind, directory, volume_id="another")
    scene.rig.records.forget(one)
    one = scene.attachment("g1", kind, directory)
    with pytest.raises(Refused, match="under another id"):
        scene.attachment("g2", kind, whole, name="fast/disk", volume_id="another")
    assert scene.attachment("g2", kind, whole, name="slow/disk", volume_id="another")


def test_what_is_typed_finds_it_by_any_spelling(scene: Scene) -> None:
    one = scene.attachment("g1", "quobyte", "reg1,reg2/vol")
    assert scene.admission.of("quobyte://reg2:7861/vol/disk") == [one]
    assert scene.admission.of("quobyte://reg2/vol/other") == []


def test_another_mount_point_base_makes_no_other_volume(scene: Scene) -> None:
    one = scene.attachment("g1", "quobyte", "reg1/vol")
    scene.configure("/elsewhere")
    with pytest.raises(Refused, match="is wanted on g1 already"):
        scene.attachment("g2", "quobyte", "reg1/vol")
    with pytest.raises(Refused, match=f"is connected at {one.link}"):
        scene.attachment("g1", "quobyte", "reg1/vol")
    assert scene.rig.records.all() == [one]


def test_the_id_does_not_tell_where_it_is_mounted(scene: Scene) -> None:
    one = scene.attachment("g1", "nfs", "nas:/v")
    scene.rig.records.forget(one)
    scene.configure("/elsewhere")
    assert scene.attachment("g1", "nfs", "nas:/v").key == one.key
