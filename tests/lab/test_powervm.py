"""PowerVM with the file systems that it is for: NFS and GPFS, mounted by the operator.

The command runs as a user starts it. NovaLink and the mounts are stand-ins; witnesses are
what NovaLink maps, and what it was asked to change.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lab.command import Moorline
from lab.novalink import NovaLink
from lab.novalink.model import Disk, Mapping, partition_uuid
from lab.novalink.partition import EXPORT, Shares, Volume, moorline, shares
from lab.novalink.rig import DB, WEB, image, mapped
from moorline.host.mount.table import read

ID = "3f2a9c1e-5b7d-4e21-9a68-0c1d2e3f4a5b"


@pytest.fixture
def novalink(lab: Path) -> Iterator[NovaLink]:
    with NovaLink() as novalink:
        yield novalink


@pytest.fixture
def directory(lab: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=lab, prefix="powervm-") as directory:
        yield Path(directory)


@pytest.fixture
def at(directory: Path, leftovers_check: None) -> Iterator[Shares]:
    with shares(directory) as at:
        yield at


@pytest.fixture
def command(novalink: NovaLink, directory: Path, at: Shares) -> Moorline:
    return moorline(novalink, directory, at)


def attach(command: Moorline, volume: Volume, *more: str, code: int = 0) -> str:
    connection = str(volume.connection)
    return command("attach", "web01", "--connection", connection, *more, code=code).stderr


@pytest.mark.parametrize("kind", ["nfs", "gpfs"])
def test_d3_a_stock_connection_of_cinder_becomes_a_disk_and_goes(
    novalink: NovaLink, command: Moorline, at: Shares, kind: str
) -> None:
    """Its ``export`` is no path here, or there is none; its ``data`` has no volume id."""
    volume = at.on_nfs(ID) if kind == "nfs" else at.on_gpfs(ID)
    told = json.loads(volume.connection.read_text())
    assert told["data"].get("export", EXPORT) == EXPORT
    assert not {"volume_id", "serial"} & set(told["data"])
    attach(command, volume)
    attach(command, volume)
    assert [m[:2] for m in mapped(novalink)] == [(WEB, ID)]
    paths = {m.disk.path for m in novalink.system.made() if m.disk}
    assert paths == {str(volume.file)}
    (view,) = command.json("show", ID)
    assert (view["backend"], view["link"], view["seen"]) == (
        kind,
        str(volume.file.parent),
        "attached",
    )
    assert novalink.service.updates() == 1
    command("detach", "web01", ID)
    command("detach", "web01", ID)
    assert (mapped(novalink), command.json("list")) == ([], [])
    assert novalink.service.updates() == 2
    assert volume.file.stat().st_size == 1 << 20


def test_d3_a_mount_at_the_path_that_is_no_nfs_is_not_taken_for_the_share(
    novalink: NovaLink, command: Moorline, at: Shares
) -> None:
    """Without the lab's mount table it is what it is: FUSE."""
    volume = at.on_nfs(ID)
    told = attach(replace(command, before=()), volume, code=7)
    assert "fuse.nfs4), not the share" in told
    assert novalink.service.updates() == 0


def test_d3_a_share_that_the_operator_has_not_mounted_is_waited_for(
    novalink: NovaLink, command: Moorline, at: Shares
) -> None:
    volume = at.on_nfs(ID)
    subprocess.run(["umount", at.nfs], check=True)
    try:
        told = attach(command, volume, "--timeout", "0", code=5)
        assert f"nothing is mounted at {at.nfs}" in told
        assert novalink.service.updates() == 0
    finally:
        at.mount("nfs")
    command("sweep")
    assert [m[1] for m in mapped(novalink)] == [ID]


def test_a_file_that_grew_on_the_share_is_seen_after_a_rescan(
    novalink: NovaLink, command: Moorline, at: Shares
) -> None:
    volume = at.on_nfs(ID)
    attach(command, volume)
    os.truncate(volume.file, 3 << 20)
    done = command.json("extend", "web01", ID, "3M")
    assert (done["steps"], done["before"], done["size"]) == (["extend"], 1 << 20, 3 << 20)
    rescans = [call for call in novalink.trace if "RescanVirtualDisk" in call[1]]
    assert [call[0] for call in rescans] == ["GET", "PUT"]
    assert command.json("extend", "web01", ID)["steps"] == []
    assert [call for call in novalink.trace if "RescanVirtualDisk" in call[1]] == rescans
    assert novalink.service.updates() == 1


def test_a_share_that_moorline_mounts_itself_goes_with_its_last_volume(
    novalink: NovaLink, command: Moorline, lab: Path
) -> None:
    """GlusterFS, whose mounts are FUSE in life as well: no table of the lab's is needed."""
    filer = lab / "mounted"
    (filer / "one").mkdir(parents=True)
    (filer / "shares.json").write_text(json.dumps({"g1:/one": {"directory": "one"}}))
    (filer / "calls.jsonl").touch()
    image(filer / "one", "volume-1")
    command = replace(command, before=())
    url = "glusterfs://g1/one/volume-1"
    command("attach", "web01", url, "--format", "raw", "--volume", ID)
    (mount,) = [mount for mount in read() if mount.fstype == "fuse.glusterfs"]
    paths = {m.disk.path for m in novalink.system.made() if m.disk}
    assert paths == {f"{mount.target}/volume-1"}
    command("detach", "web01", ID)
    assert mapped(novalink) == []
    assert [mount for mount in read() if mount.fstype == "fuse.glusterfs"] == []
    shutil.rmtree(filer)


@pytest.fixture
def names(directory: Path, leftovers_check: None) -> Iterator[tuple[str, str]]:
    """Of one file, through a bind mount."""
    one, other = directory / "one", directory / "other"
    for path in (one, other):
        path.mkdir()
    image(one, "v1.raw")
    subprocess.run(["mount", "--bind", one, other], check=True)
    yield str(one / "v1.raw"), str(other / "v1.raw")
    subprocess.run(["umount", other], check=True)


def test_one_file_of_two_names_goes_to_one_lpar(command: Moorline, names: tuple[str, str]) -> None:
    one, other = names
    command("attach", "web01", one, "--format", "raw")
    for lpar in ("db01", "web01"):
        told = command("attach", lpar, other, "--format", "raw", code=3)
        assert f"web01 has {other} already, as {one}" in told.stderr
    command("detach", "web01", one)
    command("attach", "db01", other, "--format", "raw")


def test_both_have_it_who_share_it(command: Moorline, names: tuple[str, str]) -> None:
    for lpar, name in zip(("web01", "db01"), names, strict=True):
        command("attach", lpar, name, "--format", "raw", "--shared")
    assert "shared-file" not in command("doctor", code=None).stdout


def test_doctor_finds_a_file_that_two_lpars_have(
    command: Moorline, novalink: NovaLink, names: tuple[str, str]
) -> None:
    one, other = names
    command("attach", "web01", one, "--format", "raw")
    by_hand = Mapping(DB, 11, 17, 1019, Disk(other, "", "u", "1"), "lun2")
    novalink.system.mappings[partition_uuid(1)] += (by_hand,)
    novalink.system.touch()
    assert "shared-file" in command("doctor", code=10).stdout
