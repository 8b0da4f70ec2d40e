"""Disks on mounts that somebody else made are recognised, and the setting that is told works."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from moorline.backends.local import LocalFile
from moorline.backends.mounted import GlusterFs, Gpfs, Nfs, Smbfs
from moorline.backends.osbrick.hyperscale import HyperScale
from moorline.backends.quobyte import Quobyte
from moorline.backends.virtuozzo import Virtuozzo
from moorline.errors import Refused
from moorline.ports import Mount
from moorline.ports.recognising import Locating, Recognised, Recognising
from moorline.testing.toy_host import ToyHost
from tests.support.care_rig import disk


class Case(NamedTuple):
    driver: Any
    fstype: str
    source: str
    expected: Mapping[str, str]
    """What the connection of ``volume-1`` says beside the format."""
    setting: str
    """Of a mount at /hand that is not to be ours."""
    other: str = ""
    """Another share's source."""


CASES = [
    Case(
        *(Quobyte, "fuse.quobyte", "quobyte@reg1:7861|reg2:7861/vol"),
        {"export": "reg1,reg2/vol", "name": "dir/volume-1"},
        "quobyte_mounted = reg1,reg2/vol=/hand",
        "quobyte@reg1/other",
    ),
    Case(
        *(Virtuozzo, "fuse.vstorage", "vstorage://clu"),
        {"export": "clu", "name": "dir/volume-1"},
        "vzstorage_mounted = clu=/hand",
        "vstorage://other",
    ),
    Case(
        *(Virtuozzo, "fuse.pstorage", "pstorage://clu/"),
        {"export": "clu", "name": "dir/volume-1"},
        "vzstorage_mounted = clu=/hand",
        "pstorage://other",
    ),
    Case(
        *(Nfs, "nfs4", "Filer.example.com:/vol/one"),
        {"export": "filer.example.com:/vol/one", "name": "dir/volume-1"},
        "nfs_mounted = filer.example.com:/vol/one=/hand",
        "filer.example.com:/vol/two",
    ),
    Case(
        *(Smbfs, "cifs", "//Filer/One"),
        {"export": "//filer/one", "name": "dir/volume-1"},
        "smbfs_mounted = //filer/one=/hand",
        "//filer/two",
    ),
    Case(
        *(GlusterFs, "fuse.glusterfs", "g1:one"),
        {"export": "g1:/one", "name": "dir/volume-1"},
        "glusterfs_mounted = g1:/one=/hand",
        "g1:/two",
    ),
    Case(
        *(Gpfs, "gpfs", "fs1"),
        {"name": "volume-1", "device_path": "/hand/dir/volume-1"},
        "gpfs_mount_point_base = /hand",
    ),
]
EACH = pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.driver.kind}-{c.fstype}")
DISK = disk("/hand/dir/volume-1", format="qcow2")


def mount(case: Case, target: str = "/hand", source: str = "", root: str = "/") -> Mount:
    return Mount(7, source or case.source, target, case.fstype, "0:7", True, root)


def made(case: Case, **options: str) -> Any:
    values = {o.name: o.default for o in case.driver.options} | options
    values = {k: v.replace("${moorline.state_dir}", "/state") for k, v in values.items()}
    return case.driver.from_options(ToyHost(), values)


def recognise(backend: Any, mount: Mount, *, ours: bool = False) -> Recognised:
    assert isinstance(backend, Recognising)
    found = backend.recognise(DISK, mount, ours=ours)
    assert found is not None
    return found


def leads_to(backend: Any, connection: Mapping[str, Any]) -> str:
    parsed = backend.parse(connection)
    return f"{backend.link_name(parsed)}/{parsed.name}"


@EACH
@pytest.mark.parametrize("ours", [False, True])
def test_the_setting_that_is_told_is_all_that_is_missing(case: Case, ours: bool) -> None:
    found = recognise(made(case), mount(case), ours=ours)
    assert found.connection == {
        "driver_volume_type": case.driver.kind,
        "data": {**case.expected, "format": "qcow2"},
    }
    assert found.setting is not None
    option, value = found.setting.option, found.setting.value
    expected = case.setting.replace("_mounted", "_mount_points") if ours else case.setting
    assert f"{option} = {value}" == expected
    again = made(case, **{option: value})
    assert recognise(again, mount(case), ours=ours) == Recognised(found.connection)
    assert leads_to(again, found.connection) == DISK.path


@EACH
def test_what_is_configured_already_stays_in_the_line(case: Case) -> None:
    other = case.other or "fs2"
    first = recognise_at(case, "/other", other)
    assert first is not None
    setting = recognise(made(case, **{first[0]: first[1]}), mount(case)).setting
    assert setting is not None
    assert (setting.option, setting.value) == (
        first[0],
        f"{first[1]}, {case.setting.partition(' = ')[2]}",
    )


def recognise_at(case: Case, target: str, source: str) -> tuple[str, str] | None:
    found = made(case).recognise(disk(f"{target}/x"), mount(case, target, source))
    return (found.setting.option, found.setting.value) if found.setting else None


@EACH
def test_what_is_not_of_its_kind_is_left_to_others(case: Case) -> None:
    backend = made(case)
    assert backend.recognise(DISK, Mount(7, "/dev/sda1", "/", "ext4", "8:1", True)) is None
    assert backend.recognise(DISK, None) is None


@EACH
def test_what_does_not_tell_its_share_is_refused(case: Case) -> None:
    if case.driver is Gpfs:
        return  # has no shares: any path on it will do
    for unclear in (mount(case, root="/dir"), mount(case, source="none at all")):
        with pytest.raises(Refused):
            made(case).recognise(DISK, unclear)


@EACH
def test_a_mount_that_moorline_made_elsewhere_is_not_called_the_operator_s(case: Case) -> None:
    if case.driver is Gpfs:
        return  # mounts nothing
    at = "/old/mnt/vol-0123456789abcdef"
    with pytest.raises(Refused, match="was mounted by Moorline"):
        made(case).recognise(disk(f"{at}/volume-1"), mount(case, at))


@EACH
def test_a_connection_that_names_another_share_is_not_put_there(case: Case) -> None:
    """Two shares may have files of one name."""
    if case.driver is Gpfs:
        return
    backend = made(case)
    assert isinstance(backend, Locating)
    other = made(case).recognise(DISK, mount(case, source=case.other))
    parsed = backend.parse(other.connection)
    with pytest.raises(Refused, match="and the connection names") as refused:
        backend.setting(parsed, DISK, mount(case), ours=False)
    assert "if both are one share" in refused.value.hint
    assert backend.setting(parsed, replace(DISK, path="/hand/x"), mount(case), ours=False) is None


@EACH
def test_a_share_that_is_configured_elsewhere_is_not_moved(case: Case) -> None:
    if case.driver is Gpfs:
        return
    option, _, value = case.setting.partition(" = ")
    backend = made(case, **{option: value.replace("/hand", "/elsewhere")})
    with pytest.raises(Refused, match=r"is configured at /elsewhere"):
        backend.recognise(DISK, mount(case))


@pytest.mark.parametrize("target", ["/a,b", "/a=/b", "/a//deleted"])
def test_a_mount_point_that_no_option_can_name_is_refused(target: str) -> None:
    with pytest.raises(Refused):
        made(CASES[0]).recognise(disk(f"{target}/dir/volume-1"), mount(CASES[0], target))


def test_a_hyperscale_device_is_known_by_the_serial() -> None:
    id = "8ee71c33-dcd0-4267-8f2b-e0742ecabe9f"
    backend = HyperScale(ToyHost(), Path("/state/os-brick"))
    path = f"/dev/{id[:31]}"
    for known in ({"serial": id}, {"mark": id}):
        found = backend.recognise(disk(path, **known), None)
        assert found == Recognised(
            {"driver_volume_type": "veritas_hyperscale", "data": {"name": f"{{{id}}}"}}
        )
    for unknown in ("", "DATA01", id.replace("8", "9")):
        with pytest.raises(Refused, match="does not say which"):
            backend.recognise(disk(path, serial=unknown), None)
    assert backend.recognise(disk("/dev/sdb", serial=id), None) is None


def test_a_local_file_is_any_path() -> None:
    backend = LocalFile.from_options(ToyHost(), {"state_dir": "/state", "local_directories": ""})
    found = backend.recognise(disk("/srv/a", format="qcow2"), None)
    assert found is not None
    assert found.connection["data"] == {"path": "/srv/a", "format": "qcow2"}
