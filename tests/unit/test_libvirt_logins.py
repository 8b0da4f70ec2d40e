"""Which secret a disk names, what becomes of it, and that a lost one is seen."""

from __future__ import annotations

import base64
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from moorline.errors import Failed, Refused, Uncertain
from moorline.hypervisors.libvirt.connection import Connection
from moorline.hypervisors.libvirt.disk_xml import disk_xml
from moorline.hypervisors.libvirt.domain_xml import Domain, parse
from moorline.hypervisors.libvirt.logins import KnownLogins, Logins, secret_of
from moorline.hypervisors.libvirt.secrets import Purpose, Secrets, named_by
from moorline.model import DiskOptions, DiskState, GuestId, ImageFile, NetworkDisk, VolumeId
from moorline.network_disk import NetworkLogin
from moorline.secret import Secret

GUEST = GuestId("6f1d7c1a-0000-4000-8000-000000000001")
ONE = VolumeId("one")
THEIRS = "11111111-1111-4111-8111-111111111111"
PASSWORD = "twelve-chars-xx"
KEY = base64.b64encode(b"\x01\x02key").decode()


def lun(password: str = PASSWORD) -> NetworkDisk:
    login = NetworkLogin("moor", Secret(password))
    return NetworkDisk("iscsi", "iqn.2026-01.lab:one/1", ("192.0.2.1:3260",), login=login)


def image(key: str = KEY) -> NetworkDisk:
    login = NetworkLogin("moor", Secret(key))
    return NetworkDisk("rbd", "vols/one", ("192.0.2.1:6789",), login=login)


def domain(source: NetworkDisk | None) -> Domain:
    return Domain(GUEST, "g", parse(domain_xml(source)), None)


def domain_xml(source: NetworkDisk | ImageFile | None) -> str:
    disk = ""
    if source is not None:
        secret = secret_of(GUEST, ONE, source)
        disk = disk_xml(
            *(ONE, source, DiskOptions()),
            target="vdb",
            bus="virtio",
            place=None,
            qemu=7_002_000,
            secret=secret,
        )
    return f"<domain type='kvm' id='1'><name>g</name><devices>{disk}</devices></domain>"


class Kept:
    """Stands for libvirt's secrets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.values: dict[Purpose, bytes] = {}
        monkeypatch.setattr(Secrets, "keep", lambda _, p, v: self.values.update({p: v.reveal()}))
        monkeypatch.setattr(Secrets, "drop", lambda _, p: self.values.pop(p, None))
        self.logins = Logins(Connection("test:///default", 1.0))


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Kept:
    return Kept(monkeypatch)


@pytest.mark.parametrize(
    ("source", "kind", "value"),
    [(lun(), "iscsi", PASSWORD.encode()), (image(), "ceph", b"\x01\x02key")],
)
def test_the_disk_names_the_secret_that_is_kept(
    kept: Kept, source: NetworkDisk, kind: Any, value: bytes
) -> None:
    with kept.logins.kept(domain(None), ONE, source):
        assert kept.values == {Purpose(GUEST, ONE, kind): value}
    plugged = domain(source)
    assert plugged.secrets() == {ONE: Purpose(GUEST, ONE, kind).uuid}
    assert plugged.live is not None
    told = ET.tostring(plugged.live.xml, encoding="unicode")
    assert PASSWORD not in told
    assert KEY not in told
    kept.logins.drop(plugged, ONE)
    assert kept.values == {}


def test_libvirt_may_print_the_login_beside_the_source(kept: Kept) -> None:
    plugged = domain(lun())
    assert plugged.live is not None
    (disk,) = plugged.live.xml.iterfind("devices/disk")
    source = disk.find("source")
    auth = disk.find("source/auth")
    assert source is not None
    assert auth is not None
    source.remove(auth)
    disk.append(auth)
    again = parse(ET.tostring(plugged.live.xml, encoding="unicode"))
    assert again.disks[ONE].secret == secret_of(GUEST, ONE, lun())


@pytest.mark.parametrize("error", [Refused("no"), Failed("no")])
def test_who_surely_does_not_get_the_disk_leaves_no_secret(kept: Kept, error: Exception) -> None:
    with pytest.raises(type(error)), kept.logins.kept(domain(None), ONE, lun()):
        raise error
    assert kept.values == {}


def test_who_may_have_the_disk_keeps_the_secret(kept: Kept) -> None:
    with pytest.raises(Uncertain), kept.logins.kept(domain(None), ONE, lun()):
        raise Uncertain("perhaps")
    assert len(kept.values) == 1
    with pytest.raises(Failed), kept.logins.kept(domain(lun()), ONE, lun()):
        raise Failed("it has it already")
    assert len(kept.values) == 1


def test_a_key_that_is_none_is_refused_and_not_quoted(kept: Kept) -> None:
    with (
        pytest.raises(Refused) as refused,
        kept.logins.kept(domain(None), ONE, image("not base64!")),
    ):
        pass
    assert "not base64!" not in str(refused.value)
    assert kept.values == {}


def test_what_a_guest_needs_where_it_goes_are_the_secrets_of_ours() -> None:
    plugged = domain(lun()).live
    assert plugged is not None
    ours = secret_of(GUEST, ONE, lun())
    assert named_by(GUEST, plugged.xml) == {ours: ONE}
    theirs = ET.tostring(plugged.xml).replace(ours.encode(), THEIRS.encode())
    assert named_by(GUEST, ET.fromstring(theirs)) == {}
    sealed = ImageFile(Path("/mnt/a"), "luks")
    key = secret_of(GUEST, ONE, sealed)
    plugged = parse(domain_xml(sealed))
    assert named_by(GUEST, plugged.xml) == {key: ONE}
    assert named_by(GuestId("another"), plugged.xml) == {}


def stored(uuid: str, told: str = "<secret/>") -> Any:
    return SimpleNamespace(UUIDString=lambda: uuid, XMLDesc=lambda: told)


def test_a_secret_that_nobody_came_to_fill_is_lost() -> None:
    plugged = domain(lun())
    (uuid,) = plugged.secrets().values()
    empty = stored(uuid, "<secret><description>its value is to come</description></secret>")
    virt = SimpleNamespace(listAllSecrets=lambda: [empty])
    assert KnownLogins(virt).marked(GUEST, plugged.disks(), plugged.secrets())[ONE].locked


def test_a_disk_whose_secret_libvirtd_lost_is_locked() -> None:
    plugged = domain(lun())
    asked = []

    def secrets(*there: str) -> Any:
        def all_of_them() -> list[Any]:
            asked.append(there)
            return [stored(each) for each in there]

        return SimpleNamespace(listAllSecrets=all_of_them)

    (known,) = plugged.secrets().values()
    disks = plugged.disks()
    assert (disks[ONE].state, disks[ONE].locked) == (DiskState.WHOLE, False)
    assert KnownLogins(secrets(known)).marked(GUEST, disks, plugged.secrets()) == disks
    lost = KnownLogins(secrets()).marked(GUEST, disks, plugged.secrets())
    assert (lost[ONE].state, lost[ONE].locked) == (DiskState.WHOLE, True)
    assert len(asked) == 2
    KnownLogins(secrets()).marked(GUEST, disks, {})
    theirs = {ONE: THEIRS}
    assert KnownLogins(secrets()).marked(GUEST, disks, theirs) == disks, "nothing of ours is lost"
    assert len(asked) == 2, "libvirt is not asked about what takes no secret"
