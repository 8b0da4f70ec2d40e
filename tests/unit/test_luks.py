"""LUKS volumes on toys: what is refused, what has the key, and what becomes of it."""

from __future__ import annotations

import base64
import struct
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from moorline.cli.commands import main
from moorline.core import luks
from moorline.errors import Failed, Refused
from moorline.host.image.luks import payload_at
from moorline.hypervisors.libvirt.connection import Connection
from moorline.hypervisors.libvirt.disk_xml import disk_xml
from moorline.hypervisors.libvirt.domain_xml import Half
from moorline.hypervisors.libvirt.logins import secret_of
from moorline.hypervisors.libvirt.luks_keys import LuksKeys, demand_right_key
from moorline.hypervisors.libvirt.secrets import Secrets
from moorline.model import BlockDevice, DiskOptions, GuestId, ImageFile, Level, VolumeId
from moorline.secret import Secret
from tests.support.rig import Rig

KEY = base64.b64encode(b"right").decode()
OF = GuestId("g1"), VolumeId("a")


def sealed(encryption: Any = None, **data: Any) -> dict[str, Any]:
    told = {"share": "s1", "name": "a", "volume_id": "a", **data}
    encryption = {"provider": "luks", "key": KEY} if encryption is None else encryption
    return {"driver_volume_type": "toy", "data": told, "encryption": encryption}


@pytest.fixture
def rig() -> Rig:
    rig = Rig("g1", "g2")
    rig.world.opened_by["/toy/s1/a"] = b"right"
    return rig


@pytest.mark.parametrize("data", [{"format": "luks"}, {"format": "raw", "encrypted": True}])
def test_the_hypervisor_has_the_key_while_the_volume_is_attached(
    rig: Rig, data: dict[str, Any]
) -> None:
    outcome = rig.owner().attachments.attach("g1", sealed(**data))
    assert outcome.view.format == "luks"
    assert rig.world.keys[OF].reveal() == b"right"
    rig.world.guests[GuestId("g1")].running = False
    rig.world.guests[GuestId("g1")].live.clear()
    rig.owner().attachments.detach("g1", "a")
    assert rig.world.keys == {}


def test_a_key_that_was_lost_is_given_again_from_the_store(rig: Rig) -> None:
    rig.owner().attachments.attach("g1", sealed(format="luks"))
    rig.world.keys.clear()
    (view,) = rig.owner().attachments.list()
    assert view.next == "unlock"
    assert rig.owner().attachments.sweep() == []
    assert rig.world.keys[OF].reveal() == b"right"


def test_a_guest_that_starts_gets_a_lost_key_by_the_hook(rig: Rig) -> None:
    rig.owner().attachments.attach("g1", sealed(format="luks"))
    assert rig.owner().guests.unready("g1") == []
    rig.world.keys.clear()
    assert rig.owner().guests.unready("g1") == ["a"]
    rig.owner().guests.ready("g1")
    assert rig.world.keys[OF].reveal() == b"right"
    assert rig.owner().guests.unready("g1") == []


def test_a_wrong_key_is_refused_and_leaves_nothing(rig: Rig) -> None:
    wrong = {"provider": "luks", "key": base64.b64encode(b"wrong").decode()}
    with pytest.raises(Refused, match="does not open"):
        rig.owner().attachments.attach("g1", sealed(wrong, format="luks"))
    assert (rig.world.keys, rig.records.all(), rig.world.mounts) == ({}, [], {})


@pytest.mark.parametrize("key", [b"\xff\xfe", b"a\0b"])
def test_a_key_that_qemu_does_not_take_is_refused(key: bytes) -> None:
    hypervisor = LuksKeys()
    hypervisor._secrets = Secrets(Connection("test:///default", 1.0))
    with pytest.raises(Refused, match="is no text in UTF-8"):
        hypervisor.give_key(*OF, Secret(key))


def test_another_key_of_what_is_attached_is_refused(rig: Rig) -> None:
    rig.owner().attachments.attach("g1", sealed(format="luks"))
    assert rig.owner().attachments.attach("g1", sealed(format="luks")).steps == []
    other = {"provider": "luks", "key": base64.b64encode(b"other").decode()}
    with pytest.raises(Refused, match="another key"):
        rig.owner().attachments.attach("g1", sealed(other, format="luks"))


def test_what_was_connected_is_attached_with_its_key(rig: Rig) -> None:
    """No key was used for the link: whichever comes with the disk is the one."""
    other = {"provider": "luks", "key": base64.b64encode(b"other").decode()}
    rig.owner().attachments.attach("g1", sealed(other, format="luks"), level=Level.CONNECTED)
    assert rig.world.keys == {}
    rig.owner().attachments.attach("g1", sealed(format="luks"))
    assert rig.world.keys[OF].reveal() == b"right"


def test_forgetting_drops_the_key(rig: Rig) -> None:
    rig.owner().attachments.attach("g1", sealed(format="luks"))
    del rig.world.guests[GuestId("g1")]
    rig.world.mounts.clear()
    rig.owner().attachments.forget("a")
    assert rig.world.keys == {}


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (sealed({}, format="luks"), "its key is not given"),
        (sealed({"provider": "luks"}, encrypted=True), "without its key"),
        (sealed({"key": "?"}, format="luks"), "base64"),
        (sealed({"key": ["x"]}, format="luks"), "base64"),
        (sealed({"key": ""}, format="luks"), "base64"),
        (sealed({"key": base64.b64encode(bytes(2049)).decode()}, format="luks"), "base64"),
        (sealed([], format="luks"), "no mapping|not a mapping"),
        (sealed({"provider": "plain", "key": KEY}, encrypted=True), "provider"),
        (sealed({"provider": "luks2", "key": KEY}, encrypted=True), "provider"),
        (sealed({"provider": ["luks"], "key": KEY}, encrypted=True), "provider"),
        (sealed(format="qcow2", encrypted=True), "not luks"),
        (sealed(format="raw"), "not luks"),
    ],
)
def test_what_cannot_be_deciphered_is_refused(rig: Rig, bad: dict[str, Any], why: str) -> None:
    with pytest.raises(Refused, match=why) as refused:
        rig.owner().attachments.attach("g1", bad)
    assert KEY not in str(refused.value)
    assert (rig.world.faults.count, rig.records.all()) == (0, [])


def test_where_nothing_deciphers_it_is_refused() -> None:
    class Devices:
        kind, format = "iscsi", "raw"

        def parse(self, connection: Any) -> Any:
            return self

    connection, devices = sealed(format="luks"), Devices()
    with pytest.raises(Refused, match="encrypted iscsi volumes are not supported"):
        luks.demand_possible(connection, devices, object())  # type: ignore[arg-type]
    devices.format = "luks"

    class Vsphere:
        kind = "vsphere"

    with pytest.raises(Refused, match="vsphere guests have no encrypted volumes"):
        luks.demand_possible(connection, devices, Vsphere())  # type: ignore[arg-type]


def test_somebody_elses_disk_has_somebody_elses_key(rig: Rig) -> None:
    guest = "6f1d7c1a-0000-4000-8000-000000000001"
    rig.owner().attachments.attach(
        guest, sealed(format="luks"), level=Level.CONNECTED, hands_off=True
    )
    assert rig.world.keys == {}


def test_it_is_neither_released_nor_adopted(rig: Rig) -> None:
    rig.owner().attachments.attach("g1", sealed(format="luks"))
    with pytest.raises(Refused, match="encrypted"):
        rig.owner().maintenance.release("g1", "a")
    assert OF in rig.world.keys
    with pytest.raises(Refused, match="not adopted"):
        rig.owner().maintenance.adopt("g1", sealed(format="luks"))


@pytest.mark.parametrize(
    "source", [ImageFile(Path("/s/a"), "luks"), BlockDevice(Path("/dev/a"), format="luks")]
)
def test_the_disk_is_raw_inside_luks_for_libvirt_and_luks_for_us(
    source: ImageFile | BlockDevice,
) -> None:
    where = {"target": "vdb", "bus": "virtio", "place": None}
    secret = secret_of(GuestId("g1"), VolumeId("a"), source)
    xml = disk_xml(VolumeId("a"), source, DiskOptions(), **where, qemu=7002000, secret=secret)  # type: ignore[arg-type]
    assert f'uuid="{secret}"' in xml
    assert 'type="raw"' in xml
    assert '<encryption format="luks"><secret type="passphrase" uuid="' in xml
    from xml.etree import ElementTree as ET

    domain = ET.fromstring(f"<domain id='1'><devices>{xml}</devices></domain>")
    half = Half(domain)
    assert half.disks[VolumeId("a")].format == "luks"
    assert {use.format for use in half.uses} == {"luks"}


def header(version: int = 1, sectors: int = 8) -> bytes:
    data = bytearray(592)
    data[:6] = b"LUKS\xba\xbe"
    struct.pack_into(">H", data, 6, version)
    struct.pack_into(">I", data, 104, sectors)
    return bytes(data)


def test_the_header_tells_where_the_disk_begins() -> None:
    assert payload_at(header(), 8192) == 4096


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (header(2), "LUKS2"),
        (header()[:591], "no LUKS header"),
        (b"x" * 592, "no LUKS header"),
        (header(sectors=17), "damaged"),
        (header(sectors=0), "damaged"),
        (header(sectors=2**32 - 1), "damaged"),
    ],
)
def test_a_header_that_qemu_would_not_open_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(Refused, match=why):
        payload_at(data, 8192)


def test_only_a_wrong_key_is_told_as_one() -> None:
    demand_right_key("a", Failed("Failed to get lock"))
    with pytest.raises(Refused, match="does not open"):
        demand_right_key("a", Failed("Invalid password, cannot unlock any keyslot"))


def test_the_key_option_is_of_one_volume_and_of_files() -> None:
    run = CliRunner()
    words = ["attach", "g1", "/a", "/b", "--format", "luks", "--luks-key-file", "-"]
    assert "of one volume" in run.invoke(main, words).output
    words = ["attach", "g1", "--connection", "-", "--luks-key-file", "-"]
    assert "standard input" in run.invoke(main, words, input="{}").output
    words = ["attach", "g1", "cinder:data", "--luks-key-file", "-"]
    assert "--connection" in run.invoke(main, words).output


def test_a_typed_volume_has_its_key_beside_it(rig: Rig) -> None:
    typed = {"url": "toy://s1/a", "encryption": {"provider": "luks", "key": KEY}}
    with pytest.raises(Refused, match="not luks"):  # a toy's URL says no format
        rig.owner().attachments.attach("g1", typed)
    assert rig.records.all() == []
