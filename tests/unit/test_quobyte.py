"""Quobyte's connections, link names and mounts, without any host."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorline.backends.mounter import Mounter
from moorline.backends.quobyte import Quobyte, QuobyteFile
from moorline.errors import Refused
from moorline.model import Caching, ImageFile, Linked
from moorline.ports import Mount
from moorline.testing.toy_host import ToyHost, ToyShare

BASE = Path("/srv/moorline/mnt")


@pytest.fixture(scope="module")
def quobyte() -> Mounter[QuobyteFile]:
    return Mounter(ToyHost(), Quobyte(), BASE)


def connection(**data: Any) -> dict[str, Any]:
    fields = {"export": "reg1,reg2/vol", "name": "volume-1", "format": "raw", "options": None}
    return {"driver_volume_type": "quobyte", "data": {**fields, **data}}


CINDER_FLAT = {
    "export": "127.0.0.1/vol",
    "name": "volume-3f2a",
    "options": None,
    "format": "qcow2",
    "qos_specs": None,
    "access_mode": "rw",
    "encrypted": False,
    "cacheable": False,
    "driver_volume_type": "quobyte",
    "mount_point_base": "/var/lib/cinder/mnt",
    "attachment_id": "a3",
    "enforce_multipath": False,
    "volume_id": "3f2a",
}


def test_cinders_attachments_api_is_understood(quobyte: Mounter[QuobyteFile]) -> None:
    parsed = quobyte.parse(CINDER_FLAT)
    assert (parsed.quobyte_volume, parsed.name, parsed.format) == ("vol", "volume-3f2a", "qcow2")
    assert (parsed.registries, parsed.volume) == (("127.0.0.1",), "3f2a")


def test_novas_nested_connection_is_understood(quobyte: Mounter[QuobyteFile]) -> None:
    parsed = quobyte.parse({**connection(export="quobyte://a,b/vol"), "serial": "3f2a"})
    assert (parsed.registries, parsed.volume) == (("a", "b"), "3f2a")


@pytest.mark.parametrize(
    "registry",
    [
        *("reg", "reg:7861", "reg.example.com", "192.0.2.3", "192.0.2.3:7866", "a_b"),
        *("[2001:db8::1]", "[2001:db8::1]:7861", "_quobyte._tcp.example.com", "r-1"),
    ],
)
def test_registries(quobyte: Mounter[QuobyteFile], registry: str) -> None:
    assert quobyte.parse(connection(export=f"{registry}/vol")).registries == (registry,)


def test_ids_that_are_none_are_not_taken(quobyte: Mounter[QuobyteFile]) -> None:
    for odd in ("", "a b", "x" * 65, 7, None, "../x"):
        assert quobyte.parse(connection(volume_id=odd)).volume is None


def test_the_mount_point_does_not_depend_on_spelling_or_credentials(
    quobyte: Mounter[QuobyteFile],
) -> None:
    spellings = [
        connection(),
        connection(export="quobyte://REG2,reg1/vol"),
        connection(export="reg2,reg1,reg2/vol", name="other", format="qcow2"),
        connection(auth_password="geheim", auth_username="admin"),
    ]
    names = {quobyte.link_name(quobyte.parse(each)) for each in spellings}
    assert len(names) == 1
    assert "geheim" not in repr([quobyte.parse(each) for each in spellings])
    (name,) = names
    assert PurePosixPath(name).parent == BASE
    assert "vol" in name, "a person sees which it is"


def test_mount_points_of_different_shares_differ(quobyte: Mounter[QuobyteFile]) -> None:
    exports = ["reg1/vol", "reg1/vol2", "reg2/vol", "reg1:7861/vol", "reg1,reg2/vol", "reg1/Vol"]
    names = {quobyte.link_name(quobyte.parse(connection(export=each))) for each in exports}
    assert len(names) == len(exports)


def test_a_typed_url(quobyte: Mounter[QuobyteFile]) -> None:
    given_ = quobyte.from_url("quobyte://reg1,reg2:7861/vol/dir/disk.qcow2", "qcow2")
    parsed = quobyte.parse(given_)
    assert parsed.registries == ("reg1", "reg2:7861")
    assert (parsed.quobyte_volume, parsed.name, parsed.format) == ("vol", "dir/disk.qcow2", "qcow2")


@pytest.mark.parametrize(
    "url",
    [
        *("quobyte://reg/vol", "quobyte://reg/vol/", "quobyte:///vol/x", "quobyte://reg//x"),
        *("quobyte://reg/vol/../x", "quobyte://reg/vol//x", "nfs://reg/vol/x", "reg/vol/x", ""),
    ],
)
def test_odd_urls_are_refused(quobyte: Mounter[QuobyteFile], url: str) -> None:
    with pytest.raises(Refused):
        quobyte.from_url(url, "raw")


def test_a_typed_format_is_not_guessed_from_the_name(quobyte: Mounter[QuobyteFile]) -> None:
    with pytest.raises(Refused, match="format"):
        quobyte.from_url("quobyte://reg/vol/disk.qcow2", None)


def test_a_missing_format_is_not_guessed_either(quobyte: Mounter[QuobyteFile]) -> None:
    with pytest.raises(Refused, match="does not say the format"):
        quobyte.parse(connection(format=None))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
FIELDS = st.sampled_from(
    ["export", "name", "format", "options", "volume_id", "serial", "data", "driver_volume_type"]
)


@given(JSON, st.dictionaries(FIELDS, JSON), st.dictionaries(FIELDS, JSON))
def test_nothing_crashes_the_parser(
    whole: Any, outer: dict[str, Any], data: dict[str, Any]
) -> None:
    quobyte = Mounter(ToyHost(), Quobyte(), BASE)
    for odd in (whole, {**connection(), **outer}, connection(**data), {**CINDER_FLAT, **data}):
        with suppress(Refused):
            assert quobyte.parse(odd).share.endswith("/vol") or "export" in data


PIECES = st.sampled_from(["..", ".", "/", "a", "-o", "\0", "\n", "\\", "reg", ",", ":", "[", "%2e"])


@given(st.lists(PIECES, max_size=8).map("".join), st.lists(PIECES, max_size=6).map("".join))
def test_nova_defect_5_no_name_escapes_its_link(name: str, export: str) -> None:
    quobyte = Mounter(ToyHost(), Quobyte(), BASE)
    for odd in (connection(name=name), connection(export=export), connection(export=f"r/{export}")):
        try:
            parsed = quobyte.parse(odd)
        except Refused:
            continue
        at = PurePosixPath(quobyte.link_name(parsed))
        assert at.parent == BASE
        assert not {"..", "."} & set(parsed.name.split("/"))
        assert (at / parsed.name).is_relative_to(at)
        share = quobyte.file_system.mount_command(parsed, Path(at))[2]
        assert not share.startswith("-")
        assert share.isprintable()


def test_a_long_odd_export_is_refused_at_once(quobyte: Mounter[QuobyteFile]) -> None:
    for odd in ("a" * 4000 + "!/vol", "a." * 2000 + "/vol", "a" * 10**6):
        with pytest.raises(Refused):
            quobyte.parse(connection(export=odd))


@pytest.mark.parametrize(
    ("fstype", "source", "ours"),
    [
        ("fuse.quobyte", "quobyte@reg1/vol", True),
        ("fuse.quobyte", "quobyte@192.0.2.9:7861/vol", True),
        ("fuse.quobyte", "quobyte@reg1/vol/", True),
        ("fuse.quobyte", "quobyte@reg1/other", False),
        ("fuse.quobyte", "quobyte@reg1/vol/sub", False),
        ("fuse.quobyte", "quobyte", True),
        ("fuse", "quobyte@192.0.2.3:7866|192.0.2.4:7866/", True),
        ("fuse", "quobyte@reg1|reg2/vol", True),
        ("fuse", "quobyte@reg1|reg2/other", False),
        ("fuse", "someone@reg1/vol", False),
        ("fuse.sshfs", "quobyte@reg1/vol", False),
        ("ext4", "quobyte@reg1/vol", False),
    ],
)
def test_mounts_of_all_clients_are_recognised(
    quobyte: Mounter[QuobyteFile], fstype: str, source: str, ours: bool
) -> None:
    mount = Mount(1, source, "/x", fstype, "0:1", shared=True)
    assert quobyte.file_system.is_mount_of(quobyte.parse(connection()), mount) is ours


def test_the_page_cache_is_bypassed(tmp_path: Path) -> None:
    host = ToyHost()
    quobyte = Mounter(host, Quobyte(), tmp_path)
    parsed = quobyte.parse(connection())
    at = quobyte.link_name(parsed)
    host.mount("quobyte@reg1/vol", at, "fuse.quobyte", ToyShare())
    link = quobyte.inspect(parsed)
    assert link == Linked(ImageFile(Path(at, "volume-1"), "raw", Caching.DIRECT))


def test_options_are_read_under_novas_names() -> None:
    values = {option.name: option.default for option in Quobyte.options}
    assert {"quobyte_mount_point_base", "quobyte_client_cfg"} < set(values)
    values |= {"quobyte_mount_point_base": "/srv/mnt", "quobyte_client_cfg": "/etc/q.cfg"}
    quobyte = Quobyte.from_options(ToyHost(), values)
    parsed = quobyte.parse(connection())
    assert quobyte.file_system.mount_command(parsed, Path("/m"))[-2:] == ("-c", "/etc/q.cfg")
    assert quobyte.link_name(parsed).startswith("/srv/mnt/")


@pytest.mark.parametrize("name", ["quobyte_mount_point_base", "quobyte_client_cfg"])
def test_unusable_options_are_refused(name: str) -> None:
    values = {option.name: option.default for option in Quobyte.options}
    values |= {"quobyte_mount_point_base": "/srv/mnt", name: "not/absolute"}
    with pytest.raises(Refused, match="not/absolute"):
        Quobyte.from_options(ToyHost(), values)


@pytest.mark.parametrize("said", ["r/a, r/b", "no-volume", "r@h/a"])
def test_a_mistake_in_what_writes_through_is_told_as_the_option_s(said: str) -> None:
    values = {option.name: option.default for option in Quobyte.options}
    values |= {"quobyte_mount_point_base": "/srv/mnt", "quobyte_share_writes_through": said}
    with pytest.raises(Refused, match="quobyte_share_writes_through") as refused:
        Quobyte.from_options(ToyHost(), values)
    assert "blanks between" in refused.value.hint


def test_a_mount_that_nova_made_is_ours_to_unmount(tmp_path: Path) -> None:
    host, at = ToyHost(), str(tmp_path / "5c37")
    host.mount("quobyte@reg1/vol", at, "fuse.quobyte", ToyShare(files=frozenset({"volume-1"})))
    values = {option.name: option.default for option in Quobyte.options}
    values |= {
        "quobyte_mount_point_base": str(tmp_path / "mnt"),
        "quobyte_mount_points": f"reg2,reg1/vol={at}",
    }
    quobyte = Quobyte.from_options(host, values)
    volume = quobyte.parse(connection())
    assert quobyte.link_name(volume) == at
    assert isinstance(link := quobyte.inspect(volume), Linked)
    assert not link.given
    assert [(found.link, found.ill) for found in quobyte.links()] == [(at, None)]
    quobyte.disconnect(volume)
    assert host.mounts() == []


def mounted(text: str) -> Mounter[QuobyteFile]:
    """A back end whose operator mounts volumes as *text* says."""
    values = {option.name: option.default for option in Quobyte.options}
    values |= {"quobyte_mount_point_base": "/srv/mnt", "quobyte_mounted": text}
    return Quobyte.from_options(ToyHost(), values)


def test_what_the_operator_mounts_is_used_where_it_is() -> None:
    quobyte = mounted("reg2, reg1/vol=/nova/mnt/5c37, reg3/other=/srv/other")
    for export, at in (
        ("reg1,reg2/vol", "/nova/mnt/5c37"),
        ("quobyte://reg2,reg1/vol", "/nova/mnt/5c37"),
        ("reg3/other", "/srv/other"),
    ):
        assert quobyte.link_name(quobyte.parse(connection(export=export))) == at
    elsewhere = quobyte.link_name(quobyte.parse(connection(export="reg1/vol")))
    assert elsewhere.startswith("/srv/mnt/")


@pytest.mark.parametrize(
    "text", ["reg1/vol", "=/srv/x", "reg1/vol=srv", "reg1/vol=/a/../b", "reg1=/srv/x", "a,b"]
)
def test_what_the_operator_mounts_is_said_plainly(text: str) -> None:
    with pytest.raises(Refused):
        mounted(text)
