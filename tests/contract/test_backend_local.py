"""Local files against the back end contract, and what is theirs alone."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moorline.backends.local import LocalFile
from moorline.errors import Refused
from moorline.host.linux import Linux
from moorline.model import BlockDevice, Linked
from moorline.testing.contracts.backend import BackendContract, BackendRig, look


def connection(path: Path | str, format: str = "raw", **more: Any) -> dict[str, Any]:
    return {"driver_volume_type": "local", "data": {"path": str(path), "format": format, **more}}


class LocalRig(BackendRig):
    given = True

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.host = Linux(look_deadline=5)
        self.state = directory / "state"
        (self.state / "deep").mkdir(parents=True)
        for name in ("key", "moorline.db", "deep/disk.raw"):
            (self.state / name).write_bytes(bytes(4096))
        self.backend = LocalFile(self.host, state_dir=self.state)
        self.another = directory / "another"
        (self.another / "mnt/share").mkdir(parents=True)
        for name in ("key", "moorline.db", "events.jsonl", "mnt/share/disk.raw"):
            (self.another / name).write_bytes(bytes(4096))
        for name in ("a.raw", "b.raw"):
            with (directory / name).open("wb") as file:
                file.truncate(1 << 20)
        os.mkfifo(directory / "fifo")
        (directory / "dir").mkdir()
        (directory / "qcow2").write_bytes(b"QFI\xfb" + bytes(600))
        (directory / "link.raw").symlink_to("a.raw")
        (directory / "linked").symlink_to(".")
        (directory / "one.raw").write_bytes(bytes(4096))
        os.link(directory / "one.raw", directory / "two.raw")
        os.link(self.state / "key", directory / "key.raw")
        self.good = connection(directory / "a.raw")
        self.other = connection(directory / "b.raw")
        self.missing = connection(directory / "none.raw")
        self.respelled = (
            {**self.good, "serial": "abc"},
            {"driver_volume_type": "local", **self.good["data"]},
        )
        self.unfit = {
            "a FIFO": connection(directory / "fifo"),
            "a directory": connection(directory / "dir"),
            "no directory": connection(directory / "none/a.raw"),
            "a file as directory": connection(directory / "a.raw/b"),
            "a symbolic link": connection(directory / "link.raw"),
            "a directory that is one": connection(directory / "linked/a.raw"),
            "qcow2 declared raw": connection(directory / "qcow2"),
            "raw declared qcow2": connection(directory / "a.raw", "qcow2"),
            "one of several names": connection(directory / "two.raw"),
            "our key": connection(self.state / "key"),
            "our key by another name": connection(directory / "key.raw"),
            "a file deep in our state": connection(self.state / "deep/disk.raw"),
            "the key of another state": connection(self.another / "key"),
            "the records of another state": connection(self.another / "moorline.db"),
            "a file deep in another state": connection(self.another / "mnt/share/disk.raw"),
            "a file of /proc that cannot be read": connection(f"/proc/{os.getpid()}/mem"),
            "a file of /proc": connection(f"/proc/{os.getpid()}/comm"),
            "a file of /sys": connection("/sys/kernel/mm/transparent_hugepage/enabled"),
            "a character device": connection("/dev/null"),
            "no device": connection("/dev/moorline-none"),
        }
        self.hostile = {
            repr(path): connection(path)
            for path in (
                "",
                "a.raw",
                "./a",
                "/",
                "/a/../b",
                "/a/./b",
                "/a//b",
                "/a/",
                "/a\n",
                "~/a",
            )
        } | {"a device in qcow2": connection("/dev/vda", "qcow2")}

    def world(self) -> object:
        return {path.name: path.lstat().st_mtime_ns for path in self.directory.iterdir()}


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalRig]:
    rig = LocalRig(Path(os.path.realpath(tmp_path)))
    yield rig
    rig.host.close()


class TestLocalFiles(BackendContract):
    @pytest.fixture
    def rig(self, local: LocalRig) -> BackendRig:
        return local


def test_what_a_person_types_becomes_the_real_path(local: LocalRig) -> None:
    for typed in ("linked/a.raw", "dir/../a.raw", "linked/linked/./a.raw"):
        for scheme in ("", "file://"):
            url = f"{scheme}{local.directory}/{typed}"
            assert local.backend.from_url(url, "raw") == local.good


def test_a_path_whose_directory_is_gone_can_still_be_named(local: LocalRig) -> None:
    typed = local.backend.from_url("/no/such/directory/a.raw", "raw")
    assert local.backend.link_name(local.backend.parse(typed)) == "/no/such/directory/a.raw"


@pytest.mark.parametrize("url", ["a.raw", "", "/", "/..", "file://a.raw", "https://x/a.raw"])
def test_what_is_no_absolute_path_is_refused(local: LocalRig, url: str) -> None:
    with pytest.raises(Refused):
        local.backend.from_url(url, "raw")


def test_the_format_must_be_said(local: LocalRig) -> None:
    with pytest.raises(Refused, match="format"):
        local.backend.from_url(f"{local.directory}/a.raw", None)


def test_devices_keep_the_name_that_lasts(local: LocalRig) -> None:
    given = local.backend.from_url("/dev/disk/by-id/some-disk", "raw")
    link = look(local, given)
    assert link == Linked(BlockDevice(Path("/dev/disk/by-id/some-disk")), given=True)


def test_what_is_typed_by_way_of_a_process_is_refused(local: LocalRig) -> None:
    """The text of /proc/PID/root says "/", whatever that process has there."""
    for way in ("root", "cwd"):
        with pytest.raises(Refused, match="a file of the kernel's"):
            local.backend.from_url(f"/proc/self/{way}{local.directory}/a.raw", "raw")


def test_a_block_device_is_verified(local: LocalRig) -> None:
    mounted = {mount.device for mount in local.host.mounts()}
    numbers = {p: p.stat().st_rdev for p in Path("/dev").glob("loop*") if p.is_block_device()}
    devices = [p for p, n in numbers.items() if f"{os.major(n)}:{os.minor(n)}" not in mounted]
    if not devices:
        pytest.skip("this machine has no block device that is free")
    local.backend.verify(local.backend.parse(connection(devices[0])))


def test_the_reason_names_the_real_path(local: LocalRig) -> None:
    with pytest.raises(Refused, match=f"{local.directory}/a.raw"):
        local.backend.verify(local.backend.parse(local.unfit["a directory that is one"]))


@pytest.mark.parametrize(
    ("vice", "why"),
    [
        ("one of several names", "has 2 names"),
        ("our key", "Moorline's own state"),
        ("our key by another name", "Moorline's own state"),
        ("a file deep in our state", "Moorline's own state"),
        ("a file of /proc", r"of the kernel's \(proc\)"),
        ("a file of /sys", r"of the kernel's \(sysfs\)"),
    ],
)
def test_what_no_guest_may_have_is_refused_for_what_it_is(
    local: LocalRig, vice: str, why: str
) -> None:
    with pytest.raises(Refused, match=why):
        local.backend.verify(local.backend.parse(local.unfit[vice]))


def test_a_file_beneath_an_image_is_looked_at_as_well(local: LocalRig) -> None:
    top = local.directory / "top.qcow2"
    command = ["qemu-img", "create", "-qf", "qcow2", "-u", "-b", "key.raw", "-F", "raw", top, "1M"]
    subprocess.run(command, check=True)
    with pytest.raises(Refused) as refused:
        local.backend.verify(local.backend.parse(connection(top, "qcow2")))
    named = f"the backing file of {top}: {local.directory}/key.raw is part of Moorline's own state"
    assert refused.value.message.startswith(named)


@pytest.mark.parametrize("vice", ["a symbolic link", "none", "a FIFO", "a directory"])
def test_a_local_file_lies_in_a_directory_and_on_no_share(local: LocalRig, vice: str) -> None:
    given = local.missing if vice == "none" else local.unfit[vice]
    with pytest.raises(Refused) as refused:
        local.backend.verify(local.backend.parse(given))
    assert "share" not in str(refused.value)
    if vice == "none":
        assert refused.value.message == f"there is no file none.raw in {local.directory}"
    if vice == "a symbolic link":
        assert refused.value.message == "link.raw is a symbolic link to 'a.raw'"


def test_our_state_is_known_by_its_link(local: LocalRig, tmp_path: Path) -> None:
    named = tmp_path / "by-link"
    named.symlink_to(local.state)
    backend = LocalFile(local.host, state_dir=named)
    for vice in ("our key", "our key by another name", "a file deep in our state"):
        with pytest.raises(Refused, match="Moorline's own state"):
            backend.verify(backend.parse(local.unfit[vice]))


def test_disks_lie_only_where_the_operator_lets_them(local: LocalRig, tmp_path: Path) -> None:
    by_link = tmp_path / "by-link"
    by_link.symlink_to(local.directory / "dir")
    inside = local.directory / "dir/a.raw"
    inside.write_bytes(bytes(4096))
    values = {"state_dir": str(local.state), "local_directories": f"/srv/none, {by_link},"}
    limited = LocalFile.from_options(local.host, values)
    assert limited.verify(limited.parse(connection(inside))).path == inside
    for outside in (local.good, connection("/dev/null"), connection(f"{local.directory}/dir2")):
        with pytest.raises(Refused, match="not where local disks may lie"):
            limited.verify(limited.parse(outside))
    anywhere = LocalFile.from_options(local.host, {**values, "local_directories": ""})
    assert anywhere.verify(anywhere.parse(local.good))
    with pytest.raises(Refused, match="not an absolute path"):
        LocalFile.from_options(local.host, {**values, "local_directories": "srv"})
