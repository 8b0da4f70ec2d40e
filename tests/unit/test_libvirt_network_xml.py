"""Disks of servers in libvirt's XML: made, and found again, whoever's guest has them."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from moorline.errors import Refused
from moorline.hypervisors.libvirt import network_xml
from moorline.hypervisors.libvirt.disk_address import check
from moorline.hypervisors.libvirt.disk_xml import disk_xml, path_of
from moorline.hypervisors.libvirt.domain_xml import Domain, Half, parse
from moorline.model import DiskOptions, NetworkDisk, Use, VolumeId
from moorline.network_disk import NetworkLogin
from moorline.secret import Secret

NBD = NetworkDisk("nbd", "vol1", ("10.0.0.4:10809",))


SECRET = "6f1d7c1a-0000-4000-8000-000000000001"


def xml(source: NetworkDisk, options: DiskOptions | None = None, volume: str = "one") -> str:
    return disk_xml(
        VolumeId(volume),
        source,
        options or DiskOptions(),
        target="vdb",
        bus="virtio",
        place=None,
        qemu=7_002_000,
        secret=SECRET,
    )


def half(*disks: str) -> Half:
    return parse(f"<domain><name>g</name><devices>{''.join(disks)}</devices></domain>")


@given(
    name=st.text(max_size=20),
    server=st.sampled_from(["10.0.0.4:10809", "[::1]:7", "filer.example:1", "/run/a b.sock"]),
    tls=st.booleans(),
    readonly=st.booleans(),
)
def test_what_is_made_is_found_as_what_it_is_known_by(
    name: str, server: str, tls: bool, readonly: bool
) -> None:
    source = NetworkDisk("nbd", name, (server,), tls)
    try:
        made = xml(source, DiskOptions(readonly=readonly))
    except Refused:
        assume(False)
    found = half(made)
    (disk,) = found.disks.values()
    assert disk.source == source.path == path_of(source)
    assert found.uses == {Use(source.path, "raw", readonly, volume="one")}
    assert found.unresolved == frozenset()


def test_it_is_what_libvirt_documents() -> None:
    source = ET.fromstring(xml(NBD)).find("source")
    assert source is not None
    assert ET.tostring(source, encoding="unicode") == (
        '<source protocol="nbd" name="vol1"><host name="10.0.0.4" port="10809" /></source>'
    )
    assert 'tls="yes"' in xml(NetworkDisk("nbd", "v", ("a:1",), tls=True))
    six = xml(NetworkDisk("nbd", "v", ("[::1]:10809",)))
    assert '<host name="::1" port="10809" />' in six
    unix = xml(NetworkDisk("nbd", "v", ("/run/s.sock",)))
    assert '<host transport="unix" socket="/run/s.sock" />' in unix
    assert ET.fromstring(unix).get("type") == "network"


def test_a_login_goes_by_a_secret_and_never_by_itself() -> None:
    login = NetworkLogin("moor", Secret("twelvecharsxx"))
    source = NetworkDisk(
        "iscsi", "iqn.2026-01.lab:a/1", ("a:3260",), initiator="iqn.h", login=login
    )
    made = xml(source)
    assert f'<auth username="moor"><secret type="iscsi" uuid="{SECRET}" /></auth>' in made
    assert '<initiator><iqn name="iqn.h" /></initiator>' in made
    assert "twelvecharsxx" not in made + repr(source)


def test_a_snapshot_of_an_image_is_named_beside_it() -> None:
    login = NetworkLogin("moor", Secret("AQDwIQ5rXyuPIhAApzHAy4mNDa+3vys+cgvrQw=="))
    made = xml(NetworkDisk("rbd", "vols/v1@s1", ("[::1]:6789", "mon:3300"), login=login))
    assert (
        '<source protocol="rbd" name="vols/v1"><host name="::1" port="6789" />'
        '<host name="mon" port="3300" /><snapshot name="s1" />'
        f'<auth username="moor"><secret type="ceph" uuid="{SECRET}" /></auth></source>'
    ) in made
    assert half(made).uses == {Use("rbd:vols/v1", "raw", volume="one")}
    assert '<source protocol="nbd" name="a@b">' in xml(NetworkDisk("nbd", "a@b", ("mon:1",)))


@pytest.mark.parametrize("name", ["a\x00", "a\n", "\ud800", "\ufffe"])
def test_what_xml_cannot_carry_is_refused(name: str) -> None:
    with pytest.raises(Refused):
        path_of(NetworkDisk("nbd", name, ("a:1",)))


def test_the_cache_is_as_asked_and_nothing_is_native() -> None:
    def driver(options: DiskOptions) -> dict[str, str]:
        found = ET.fromstring(xml(NBD, options)).find("driver")
        assert found is not None
        return found.attrib

    assert driver(DiskOptions()) == {"name": "qemu", "type": "raw"}
    assert driver(DiskOptions(shared=True)) == {"name": "qemu", "type": "raw", "cache": "none"}
    assert driver(DiskOptions(cache="none"))["cache"] == "none"


@pytest.mark.parametrize(
    "options", [DiskOptions(startup_policy="optional"), DiskOptions(io="threads")]
)
def test_options_of_files_alone_are_refused(options: DiskOptions) -> None:
    stopped = half()
    domain = Domain("u", "g", None, stopped)
    with pytest.raises(Refused):
        check(domain, [stopped], NBD, options)
    check(domain, [stopped], NBD, DiskOptions())


STRANGERS = {
    "<source protocol='nbd' name='vol1'><host name='10.0.0.4' port='10809'/></source>": NBD.path,
    "<source protocol='nbd' name='vol1'><host name='10.0.0.4'/></source>": NBD.path,
    "<source protocol='nbd' name='vol1' tls='yes'><host name='10.0.0.4' port='10809'/>"
    "</source>": NBD.path,
    "<source protocol='nbd'><host name='10.0.0.4'/></source>": "nbd://10.0.0.4:10809/",
    "<source protocol='nbd' name='v'><host transport='unix' socket='/s'/></source>": (
        "nbd+unix:///v?socket=/s"
    ),
    "<source protocol='iscsi' name='iqn.2026-01.lab:a'><host name='h'/></source>": (
        "iscsi:iqn.2026-01.lab:a/0"
    ),
    "<source protocol='rbd' name='p/i'/>": "rbd:p/i",
    "<source protocol='rbd' name='p/i'><host name='m'/><snapshot name='s'/></source>": "rbd:p/i",
    "<source protocol='https' name='x.iso'><host name='h' port='443'/></source>": (
        "https://h:443/x.iso"
    ),
}


@pytest.mark.parametrize("source", STRANGERS)
def test_the_disks_of_strangers_are_found(source: str) -> None:
    known = STRANGERS[source]
    target = "<target dev='vda'/>"
    plain = half(f"<disk type='network'>{source}{target}</disk>")
    assert plain.uses == {Use(known, "raw")}
    above = "<source file='/over'/><driver type='qcow2'/>"
    below = (
        f"<backingStore type='network'><format type='raw'/>{source}<backingStore/></backingStore>"
    )
    beneath = half(f"<disk type='file'>{above}{below}{target}</disk>")
    assert Use(known, "raw", readonly=True, beneath=True) in beneath.uses
    mirror = f"<mirror type='network'><format type='raw'/>{source}</mirror>"
    copied = half(f"<disk type='file'><source file='/a'/>{mirror}{target}</disk>")
    assert Use(known, "raw") in copied.uses


def test_a_snapshot_above_a_server_s_disk_tells_what_lies_beneath() -> None:
    under = ET.tostring(ET.fromstring(xml(NBD)).find("source") or ET.Element("x"), "unicode")
    disk = (
        "<disk type='file' device='disk'><driver type='qcow2'/><source file='/over'/>"
        f"<backingStore type='network'><format type='raw'/>{under}<backingStore/></backingStore>"
        "<target dev='vdb'/><serial>one</serial><alias name='ua-one'/></disk>"
    )
    (found,) = half(disk).disks.values()
    assert (found.source, found.beneath) == ("/over", (NBD.path,))


def test_a_socket_is_of_one_host() -> None:
    for source, here in ((NBD, False), (NetworkDisk("nbd", "", ("/s",)), True)):
        element = ET.fromstring(xml(source)).find("source")
        assert element is not None
        assert network_xml.is_on_a_socket(element) is here
