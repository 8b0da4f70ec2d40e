"""Virtuozzo Storage's shares and settings, without any host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorline.backends.virtuozzo import FileOrPloop, Virtuozzo
from moorline.backends.virtuozzo_settings import MountSettings, settings_of
from moorline.errors import Refused
from moorline.model import Caching, ImageFile, Linked
from moorline.ports import Mount
from moorline.secret import Secret
from moorline.testing.toy_host import ToyHost, ToyShare

VIRTUOZZO = Virtuozzo(has_command="vstorage-mount".__eq__)
BACKEND = VIRTUOZZO.on(ToyHost(), mount_point_base=Path("/mnt"))
PASSWORDS = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=40)


def parse(export: str, **more: Any) -> Any:
    data = {"export": export, "name": "volume-1", "format": "raw", **more}
    return BACKEND.parse({"driver_volume_type": "vzstorage", "data": data})


def parts(export: str) -> tuple[tuple[str, ...], str, str | None]:
    c = parse(export)
    return c.servers, c.share, c.password.reveal() if c.password else None


@pytest.mark.parametrize(
    ("export", "expected"),
    [
        ("clu", ((), "clu", None)),
        ("clu:pw", ((), "clu", "pw")),
        ("mds1:/clu", (("mds1",), "clu", None)),
        ("mds1,MDS2.example.com:7510:/clu:pw", (("mds1", "mds2.example.com:7510"), "clu", "pw")),
        ("[FE80::0:1]:7510,192.0.2.1:/clu", (("[fe80::1]:7510", "192.0.2.1"), "clu", None)),
        # Nova's defect 4: these were read as other clusters, and passwords cut.
        ("clu:pa:/other", ((), "clu", "pa:/other")),
        ("mds1:/clu:pa:/other", (("mds1",), "clu", "pa:/other")),
        ("mds1:/clu:/other", (("mds1",), "clu", "/other")),
        ("clu:p w, -o: /x@é", ((), "clu", "p w, -o: /x@é")),
    ],
)
def test_shares_are_read_whole(export: str, expected: object) -> None:
    assert parts(export) == expected


@pytest.mark.parametrize("export", ["mds1:/clu.ster:pw", "bad share!", "x mds1:/clu", "clu\t"])
def test_vz_defect_4_what_only_begins_like_a_share_is_refused(export: str) -> None:
    with pytest.raises(Refused):
        parse(export)


@pytest.mark.parametrize("export", ["clu:1234:/x", "a:1,b:2:/clu", "mds1:7510:/clu:pw"])
def test_what_can_be_read_in_two_ways_is_refused(export: str) -> None:
    with pytest.raises(Refused, match="two ways"):
        parse(export)


@given(PASSWORDS)
def test_any_password_is_kept_whole_after_a_named_server(password: str) -> None:
    assert parts(f"mds1.example.com:/clu:{password}") == (("mds1.example.com",), "clu", password)


def read_or_refusal(export: str) -> tuple[tuple[str, ...], str, str | None] | str:
    try:
        return parts(export)
    except Refused as e:
        return str(e)


@given(PASSWORDS)
def test_any_password_is_kept_whole_or_refused_without_a_server(password: str) -> None:
    got = read_or_refusal(f"clu:{password}")
    if password.startswith("/"):
        assert isinstance(got, str) or got[0] == ("clu",)
    else:
        assert got == ((), "clu", password) or (isinstance(got, str) and ":/" in password)


@given(st.text(max_size=60) | st.from_regex(r"[a-c:/,.1]{1,20}", fullmatch=True))
def test_shares_are_read_to_their_last_character_or_refused(export: str) -> None:
    got = read_or_refusal(export)
    if isinstance(got, str):
        assert len(export) < 8 or export not in got, "a refusal quotes nothing"
        return
    servers, cluster, password = got
    rest = f"{cluster}:{password}" if password else cluster
    assert export.endswith(rest)
    assert export.removesuffix(rest).lower() == (",".join(servers) + ":/" if servers else "")


def test_vz_defect_1_the_password_shows_nowhere() -> None:
    c = parse("mds1:/clu:geheim")
    assert c.password == Secret("geheim")
    shown = [repr(c), str(c), BACKEND.link_name(c), *VIRTUOZZO.mount_command(c, Path("/mnt/x"))]
    assert not [text for text in shown if "geheim" in text]


def test_vz_defect_2_the_path_follows_from_the_cluster_alone() -> None:
    exports = ["clu", "clu:one", "clu:two", "mds1,mds2:/clu:one", "mds2,mds1:/clu"]
    assert len({BACKEND.link_name(parse(export)) for export in exports}) == 1
    assert BACKEND.link_name(parse("clu2")) != BACKEND.link_name(parse("clu"))


def test_a_ploop_image_has_a_device_and_a_mount_apart() -> None:
    c = parse("clu", format="ploop")
    assert BACKEND.link_name(c) != BACKEND.link_name(parse("clu", name="b", format="ploop"))
    assert BACKEND.link_name(c).startswith("/dev/moorline/clu-")
    assert BACKEND.link_name(c) != BACKEND.link_name(parse("clu"))


def test_a_mount_apart_has_a_log_and_a_cache_of_its_own() -> None:
    settings = MountSettings(log="/log/%(cluster_name)s/a.gz", cache="/ssd/c")
    virtuozzo = Virtuozzo(settings, has_command=str)
    words = virtuozzo.mount_command(parse("clu", format="ploop"), Path("/at"))
    assert words[words.index("-l") + 1] == "/log/clu/ploop-a.gz"
    assert words[words.index("-C") + 1] == "/ssd/ploop-c"


def test_the_name_of_a_ploop_image_has_no_spaces() -> None:
    with pytest.raises(Refused, match="spaces"):
        parse("clu", name="a b", format="ploop")
    assert parse("clu", name="a b").name == "a b"


# --- mounts ---


@pytest.mark.parametrize(
    ("fstype", "source", "expected"),
    [
        ("fuse.vstorage", "vstorage://clu", True),
        ("fuse.pstorage", "pstorage://clu", True),
        ("fuse.vstorage", "pstorage://clu/", True),
        ("fuse.vstorage", "vstorage://clu2", False),
        ("fuse.vstorage", "clu", False),
        ("fuse.quobyte", "vstorage://clu", False),
        ("ext4", "/dev/sda1", False),
    ],
)
def test_mounts_are_told_by_type_and_cluster(fstype: str, source: str, expected: bool) -> None:
    mount = Mount(1, source, "/mnt/x", fstype, "0:1", True)
    assert VIRTUOZZO.is_mount_of(parse("clu"), mount) is expected


def test_libvirt_must_not_change_the_owner_of_images() -> None:
    source = VIRTUOZZO.source(parse("clu"), Path("/mnt/x"))
    assert source == ImageFile(Path("/mnt/x"), "raw", Caching.WRITEBACK, relabel=False)


# --- URLs ---


@pytest.mark.parametrize(
    ("url", "export", "name"),
    [
        ("vzstorage://clu/disk", "clu", "disk"),
        ("vzstorage://clu/dir/disk", "clu", "dir/disk"),
        ("vzstorage://mds1,mds2:7510:/clu/disk", "mds1,mds2:7510:/clu", "disk"),
    ],
)
def test_urls(url: str, export: str, name: str) -> None:
    connection = BACKEND.from_url(url, "raw")
    assert connection["data"] == {"export": export, "name": name, "format": "raw"}


@pytest.mark.parametrize(
    "url",
    [
        *("vzstorage://clu:geheim/disk", "vzstorage://mds1:/clu:geheim/disk", "vzstorage://clu"),
        *("vzstorage://clu/", "vzstorage:///disk", "vzstorage://clu/../x", "nfs://clu/x"),
    ],
)
def test_bad_urls_are_refused_and_passwords_not_quoted(url: str) -> None:
    with pytest.raises(Refused) as refusal:
        BACKEND.from_url(url, "raw")
    assert "geheim" not in str(refusal.value)


# --- settings ---

VALUES = {option.name: option.default for option in Virtuozzo.options}


def from_options(host: ToyHost | None = None, **values: str) -> FileOrPloop:
    base = {"vzstorage_mount_point_base": "/mnt"}
    return Virtuozzo.from_options(host or ToyHost(), {**VALUES, **base, **values})


def command(**values: str) -> tuple[str, ...]:
    return settings_of({**VALUES, **values}).arguments("clu")


def test_the_defaults_are_novas() -> None:
    assert command() == (
        *("-u", "stack", "-g", "qemu", "-m", "770"),
        *("-l", "/var/log/vstorage/clu/nova.log.gz"),
    )


def test_all_settings_reach_the_command() -> None:
    assert command(
        vzstorage_mount_user="nova",
        vzstorage_mount_group="libvirt-qemu",
        vzstorage_mount_perms="750",
        vzstorage_log_path="",
        vzstorage_cache_path="/ssd/%(cluster_name)s.cache",
        vzstorage_mount_opts="['-v', '-R', '500']",
    ) == (
        *("-u", "nova", "-g", "libvirt-qemu", "-m", "750", "-C", "/ssd/clu.cache"),
        *("-v", "-R", "500"),
    )


@pytest.mark.parametrize("opts", ["-v -R 500", "-v,-R,500", '["-v", "-R", "500"]'])
def test_extra_options_are_read_in_every_spelling(opts: str) -> None:
    assert command(vzstorage_mount_opts=opts)[-3:] == ("-v", "-R", "500")


@pytest.mark.parametrize(
    "values",
    [
        *({"vzstorage_mount_opts": f"-{flag}"} for flag in "clCugm"),
        {"vzstorage_mount_opts": "-uroot"},
        {"vzstorage_mount_opts": "-vu root"},
        {"vzstorage_mount_opts": "--"},
        {"vzstorage_mount_opts": "-v /etc /tmp"},
        {"vzstorage_mount_opts": "/etc"},
        {"vzstorage_mount_user": "1000"},
        {"vzstorage_mount_user": "-x"},
        {"vzstorage_mount_group": ""},
        {"vzstorage_mount_perms": "rwx"},
        {"vzstorage_mount_perms": "4755"},
        {"vzstorage_log_path": "log"},
        {"vzstorage_cache_path": "-x"},
        {"vzstorage_disk_cache": "unsafe"},
        {"vzstorage_mounted": "clu"},
        {"vzstorage_mounted": "clu=mnt"},
        {"vzstorage_mounted": "clu=/mnt/../etc"},
        {"vzstorage_mount_points": "clu"},
        {"vzstorage_mount_point_base": "mnt"},
    ],
)
def test_unusable_settings_are_refused(values: dict[str, str]) -> None:
    with pytest.raises(Refused):
        from_options(**values)


@pytest.mark.parametrize(
    ("value", "cache"),
    [("writeback", Caching.WRITEBACK), ("none", Caching.DIRECT), ("default", Caching.DEFAULT)],
)
def test_the_cache_policy_is_an_option(value: str, cache: Caching) -> None:
    host = ToyHost()
    backend = from_options(host, vzstorage_disk_cache=value)
    at = backend.link_name(parse("clu"))
    host.mount("vstorage://clu", at, "fuse.vstorage", ToyShare())
    link = backend.inspect(parse("clu"))
    assert link == Linked(ImageFile(Path(at, "volume-1"), "raw", cache, relabel=False))


def test_a_cluster_that_nova_mounted_is_mounted_there() -> None:
    host, at = ToyHost(), "/nova/mnt/5c37"
    backend = from_options(host, vzstorage_mount_points=f"clu={at}")
    assert backend.link_name(parse("clu:pw")) == at
    host.mount("vstorage://clu", at, "fuse.vstorage", ToyShare())
    link = backend.inspect(parse("clu"))
    assert isinstance(link, Linked)
    assert not link.given


def test_clusters_that_the_operator_mounts() -> None:
    backend = from_options(vzstorage_mounted="clu=/srv/clu, other=/srv/other")
    assert backend.link_name(parse("clu:pw")) == "/srv/clu"
    assert backend.link_name(parse("third")).startswith("/mnt/")
