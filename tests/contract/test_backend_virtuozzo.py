"""Virtuozzo Storage against the back end contract: in memory, and on a real FUSE mount."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from mounts_rig import CLIENTS
from virtuozzo_rig import SETTINGS, FuseRig, ToyRig, connection

from moorline.backends.virtuozzo_settings import MountSettings
from moorline.errors import Failed, NotOurs, Uncertain
from moorline.host.linux import Linux
from moorline.hypervisors.libvirt.disk_xml import disk_xml
from moorline.model import Caching, DiskOptions, ImageFile, Linked, Unlinked, VolumeId
from moorline.testing.contracts.backend import (
    BackendContract,
    BackendRig,
    connect,
    disconnect,
    look,
)
from tests.support.missing import needs_fuse


@pytest.fixture
def toy_rig(tmp_path: Path) -> ToyRig:
    return ToyRig(tmp_path)


@pytest.fixture
def old_rig(tmp_path: Path) -> ToyRig:
    return ToyRig(tmp_path, "pstorage")


class TestVirtuozzoOnAToyHost(BackendContract):
    @pytest.fixture
    def rig(self, toy_rig: ToyRig) -> BackendRig:
        return toy_rig


class TestOldVirtuozzoOnAToyHost(BackendContract):
    @pytest.fixture
    def rig(self, old_rig: ToyRig) -> BackendRig:
        return old_rig


@pytest.fixture
def fuse_rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[FuseRig]:
    needs_fuse()
    directory = Path(tempfile.mkdtemp(prefix="moorline-"))
    monkeypatch.setenv("MOORLINE_LAB", str(directory / "lab"))
    monkeypatch.setenv("MOORLINE_LAB_ETC", str(directory / "etc"))
    monkeypatch.setenv("PATH", str(CLIENTS), prepend=os.pathsep)
    rig = FuseRig(directory, directory / "etc")
    yield rig
    rig.tear_down()
    shutil.rmtree(directory)


@pytest.mark.lab
class TestVirtuozzoOnLinux(BackendContract):
    @pytest.fixture
    def rig(self, fuse_rig: FuseRig) -> BackendRig:
        return fuse_rig


@pytest.mark.lab
def test_a_fresh_node_is_told_the_servers_authenticated_and_mounts(fuse_rig: FuseRig) -> None:
    connect(fuse_rig, fuse_rig.good)
    link = look(fuse_rig, fuse_rig.good)
    image = ImageFile(Path(fuse_rig.at, "volume-1"), "raw", Caching.WRITEBACK, relabel=False)
    assert link == Linked(image)
    assert (fuse_rig.kept / "bs.list").read_text() == "mds1.lab\nmds2.lab\n"
    assert fuse_rig.lab.calls() == [
        ["vstorage", "-c", "clu", "auth-node", "-P"],
        ["vstorage-mount", "-c", "clu", fuse_rig.at, "-u", "nobody", "-g", "root", "-m", "777"],
    ]
    st = Path(fuse_rig.at, "volume-1").stat()
    assert (st.st_uid, st.st_gid, st.st_mode & 0o777) == (65534, 0, 0o777)
    disconnect(fuse_rig, fuse_rig.good)


@pytest.mark.lab
def test_a_node_is_authenticated_once(fuse_rig: FuseRig) -> None:
    for _ in range(2):
        connect(fuse_rig, fuse_rig.good)
        disconnect(fuse_rig, fuse_rig.good)
    assert [call[0] for call in fuse_rig.lab.calls()].count("vstorage") == 1


@pytest.mark.lab
def test_vz_defect_2_neither_password_nor_order_of_servers_moves_the_disk(
    fuse_rig: FuseRig,
) -> None:
    connect(fuse_rig, fuse_rig.good)
    before = look(fuse_rig, fuse_rig.good)
    disconnect(fuse_rig, fuse_rig.good)
    fuse_rig.cluster.rotate("new password")
    fuse_rig.cluster.servers = fuse_rig.cluster.servers[::-1]
    rotated = fuse_rig.cluster.connection("volume-1")
    assert rotated != fuse_rig.good
    connect(fuse_rig, rotated)  # what the node knows is out of date: it is authenticated anew
    assert look(fuse_rig, rotated) == before
    disconnect(fuse_rig, rotated)
    assert fuse_rig.world() == ([], [])


@pytest.mark.lab
def test_a_node_that_is_not_authenticated_cannot_mount(fuse_rig: FuseRig) -> None:
    with pytest.raises(Failed, match="not authenticated"):
        connect(fuse_rig, connection("mds1.lab:/clu", "volume-1"))
    assert fuse_rig.world() == ([], [])


@pytest.mark.lab
def test_vz_defect_5_the_last_user_unmounts(fuse_rig: FuseRig) -> None:
    connect(fuse_rig, fuse_rig.good)
    assert fuse_rig.world() != ([], [])
    disconnect(fuse_rig, fuse_rig.good)
    assert fuse_rig.world() == ([], [])


@pytest.mark.lab
def test_nova_defect_4_a_connect_leaves_no_temporary_directory(
    fuse_rig: FuseRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """os-brick writes its list of servers into a directory of tempfile.mkdtemp(), and leaves it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for _ in range(2):
        connect(fuse_rig, fuse_rig.good)
        assert list(tmp_path.iterdir()) == []
        disconnect(fuse_rig, fuse_rig.good)
    assert {path.name for path in fuse_rig.kept.iterdir()} == {"bs.list", "auth_digest.key"}


@pytest.mark.lab
def test_nova_defect_4_the_daemon_is_in_no_cgroup_of_ours(
    fuse_rig: FuseRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scope takes the daemon out of the service's cgroup, with which systemd would kill it."""
    note = tmp_path / "note"
    script = tmp_path / "systemd-run"
    script.write_text(
        f'#!/bin/sh\necho "$@" >> {note}\nwhile [ "$1" != -- ]; do shift; done\nshift\nexec "$@"\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    fuse_rig.host.close()
    fuse_rig.host = Linux(systemd=True)
    fuse_rig.backend = fuse_rig.make()
    connect(fuse_rig, fuse_rig.good)
    (scoped,) = note.read_text().splitlines()  # auth-node leaves nothing behind
    assert scoped.startswith("--scope --quiet --collect --unit=moorline-")
    assert f" -- vstorage-mount -c clu {fuse_rig.at} " in scoped
    disconnect(fuse_rig, fuse_rig.good)
    assert note.read_text().splitlines() == [scoped]


def test_nova_defect_4_the_connection_is_not_written_to(toy_rig: ToyRig) -> None:
    """Nova puts its mount options into connection_info, where they are stored."""
    before = deepcopy(toy_rig.good)
    connect(toy_rig, toy_rig.good)
    disconnect(toy_rig, toy_rig.good)
    assert toy_rig.good == before


@pytest.mark.parametrize("client", ["vstorage", "pstorage"])
def test_libvirt_is_told_to_leave_the_images_owner(tmp_path: Path, client: str) -> None:
    """It takes neither fuse.vstorage nor fuse.pstorage for shared (virfile.c, 9.0 to 12.0)."""
    rig = ToyRig(tmp_path, client)
    connect(rig, rig.good)
    link = look(rig, rig.good)
    assert isinstance(link, Linked)
    where = {"target": "vdb", "bus": "virtio", "place": None}
    xml = disk_xml(VolumeId("v"), link.source, DiskOptions(), **where, qemu=7_002_000)
    label = ET.fromstring(xml).find("source/seclabel")
    assert label is not None
    assert label.attrib == {"model": "dac", "relabel": "no"}
    disconnect(rig, rig.good)


@pytest.mark.lab
def test_the_name_is_the_active_snapshots(fuse_rig: FuseRig) -> None:
    """Cinder's driver names the file that is written to; it may stand on others."""
    active = fuse_rig.cluster.path / "volume-1.snapshot"
    base = ("-b", "volume-1", "-F", "raw")
    subprocess.run(["qemu-img", "create", "-qf", "qcow2", *base, active], check=True)
    snapshot = fuse_rig.cluster.connection(active.name, "qcow2")
    connect(fuse_rig, snapshot)
    fuse_rig.backend.verify(fuse_rig.backend.parse(snapshot))
    link = look(fuse_rig, snapshot)
    assert isinstance(link, Linked)
    assert link.source == ImageFile(
        Path(fuse_rig.at, active.name), "qcow2", Caching.WRITEBACK, relabel=False
    )
    disconnect(fuse_rig, snapshot)


@pytest.mark.lab
def test_a_wrong_password_is_told_and_not_quoted(fuse_rig: FuseRig) -> None:
    fuse_rig.cluster.rotate("right")
    with pytest.raises(Failed, match=r"vstorage exited 1: .*authentication failed") as failure:
        connect(fuse_rig, fuse_rig.good)
    assert "eim" not in str(failure.value)
    assert fuse_rig.world() == ([], [])
    assert not (fuse_rig.kept / "auth_digest.key").exists()


@pytest.mark.lab
def test_a_command_that_echoes_the_password_does_not_spread_it(fuse_rig: FuseRig) -> None:
    fuse_rig.cluster.command(auth={"fail": {"code": 1, "stderr": "no: geh:/eim is wrong"}})
    with pytest.raises(Failed, match="is wrong") as failure:
        connect(fuse_rig, fuse_rig.good)
    assert "geh:/eim" not in str(failure.value)


@pytest.mark.lab
def test_an_authentication_that_hangs_is_killed_and_uncertain(fuse_rig: FuseRig) -> None:
    fuse_rig.cluster.command(auth={"hang": True})
    hasty = fuse_rig.make(deadline=0.3)
    with pytest.raises(Uncertain):
        hasty.connect(hasty.parse(fuse_rig.good))
    assert fuse_rig.world() == ([], [])


@pytest.mark.lab
@pytest.mark.parametrize("wrong", [{"source": "vstorage://other"}, {"type": "fuse.sshfs"}])
def test_the_mount_of_something_else_is_foreign(fuse_rig: FuseRig, wrong: dict[str, str]) -> None:
    fuse_rig.cluster.command(**wrong)
    with pytest.raises(NotOurs):
        connect(fuse_rig, fuse_rig.good)


@pytest.mark.lab
def test_a_client_that_lies_is_not_believed(fuse_rig: FuseRig) -> None:
    fuse_rig.cluster.command(lie=True)
    with pytest.raises(Failed, match="nothing is mounted"):
        connect(fuse_rig, fuse_rig.good)


@pytest.mark.lab
def test_a_mount_that_nova_made_is_adopted_where_it_is(fuse_rig: FuseRig) -> None:
    connect(fuse_rig, fuse_rig.good)
    old = fuse_rig.base / "5c37ab81e0a0ff4d8a4a9f3e1bd0b1d6"  # as if named by Nova
    old.mkdir()
    subprocess.run(["mount", "--bind", fuse_rig.at, old], check=True)
    disconnect(fuse_rig, fuse_rig.good)
    adopting = fuse_rig.make(given={"clu": old})
    c = adopting.parse(fuse_rig.good)
    calls = len(fuse_rig.lab.calls())
    adopting.connect(c)
    adopting.verify(c)
    image = ImageFile(old / "volume-1", "raw", Caching.WRITEBACK, relabel=False)
    assert adopting.inspect(c) == Linked(image, given=True)
    adopting.disconnect(c)
    assert (old / "volume-1").exists()
    assert len(fuse_rig.lab.calls()) == calls


# --- without any client ---


def test_the_password_is_on_standard_input_alone(toy_rig: ToyRig) -> None:
    connect(toy_rig, toy_rig.good)
    assert toy_rig.passwords == ["geh:/eim\n"]
    parsed = toy_rig.backend.parse(toy_rig.good)
    for text in (repr(toy_rig.host.ran), repr(parsed), str(toy_rig.world())):
        assert "geh" not in text
        assert "eim" not in text


def test_the_newer_client_is_used_where_both_are(toy_rig: ToyRig) -> None:
    toy_rig.host.programs["pstorage-mount"] = toy_rig.mount
    connect(toy_rig, toy_rig.good)
    assert {argv[0] for argv in toy_rig.argvs()} == {"vstorage", "vstorage-mount"}


def test_vz_defect_3_the_list_is_where_each_client_looks(old_rig: ToyRig) -> None:
    connect(old_rig, old_rig.good)
    listed = old_rig.configuration / "pstorage/clusters/clu/bs.list"
    assert listed.read_text() == "mds1\nmds2\n"
    assert not (old_rig.configuration / "vstorage").exists()


def test_without_a_client_nothing_is_left(tmp_path: Path) -> None:
    rig = ToyRig(tmp_path, "sstorage")
    with pytest.raises(Failed, match="no command vstorage-mount"):
        connect(rig, rig.good)
    assert rig.world() == ([], [])


def test_a_list_with_the_same_servers_is_left_alone(toy_rig: ToyRig) -> None:
    toy_rig.kept.mkdir(parents=True)
    listed = toy_rig.kept / "bs.list"
    listed.write_text("mds2\nmds1\n")
    before = listed.stat()
    connect(toy_rig, toy_rig.good)
    assert (listed.stat().st_ino, listed.read_text()) == (before.st_ino, "mds2\nmds1\n")


def test_a_list_with_other_servers_is_replaced_whole(toy_rig: ToyRig) -> None:
    toy_rig.kept.mkdir(parents=True)
    listed = toy_rig.kept / "bs.list"
    listed.write_text("mds2\ngone\n")
    before = listed.stat()
    connect(toy_rig, toy_rig.good)
    assert listed.read_text() == "mds1\nmds2\n"
    assert listed.stat().st_ino != before.st_ino
    assert sorted(path.name for path in toy_rig.kept.iterdir()) == ["auth_digest.key", "bs.list"]


def test_without_servers_no_list_is_written(toy_rig: ToyRig) -> None:
    connect(toy_rig, toy_rig.other)
    assert not toy_rig.configuration.exists()


def test_a_known_node_with_a_stale_password_tries_once_more(toy_rig: ToyRig) -> None:
    connect(toy_rig, toy_rig.good)
    disconnect(toy_rig, toy_rig.good)
    toy_rig.refusals = 1
    connect(toy_rig, toy_rig.good)
    assert len(toy_rig.passwords) == 2
    disconnect(toy_rig, toy_rig.good)
    toy_rig.refusals = 2
    with pytest.raises(Failed):
        connect(toy_rig, toy_rig.good)
    assert isinstance(look(toy_rig, toy_rig.good), Unlinked)


@pytest.mark.lab
def test_a_mount_that_was_made_is_not_made_again_for_its_exit_code(fuse_rig: FuseRig) -> None:
    connect(fuse_rig, fuse_rig.good)
    disconnect(fuse_rig, fuse_rig.good)  # the node is authenticated from now on
    fuse_rig.cluster.command(fail_after={"code": 1, "stderr": "warning"})
    calls = len(fuse_rig.lab.calls())
    with pytest.raises(Failed, match="warning"):
        connect(fuse_rig, fuse_rig.good)
    assert [call[0] for call in fuse_rig.lab.calls()[calls:]] == ["vstorage-mount"]
    assert isinstance(look(fuse_rig, fuse_rig.good), Linked)
    disconnect(fuse_rig, fuse_rig.good)
    assert fuse_rig.world() == ([], [])


UNKNOWN = {
    "user": replace(SETTINGS, user="nobody-here"),
    "group": replace(SETTINGS, group="nobody-here"),
}


@pytest.mark.parametrize(("what", "settings"), UNKNOWN.items(), ids=UNKNOWN)
def test_a_name_that_the_host_does_not_know_is_told_with_its_option(
    toy_rig: ToyRig, what: str, settings: MountSettings
) -> None:
    toy_rig.backend = toy_rig.make(settings=settings)
    toy_rig.refusals = 1
    with pytest.raises(Failed, match=f"exited 1; there is no {what} .* .vzstorage_mount_{what}.$"):
        connect(toy_rig, toy_rig.good)


def test_a_mount_command_that_still_runs_is_no_reason_to_authenticate(toy_rig: ToyRig) -> None:
    toy_rig.kept.mkdir(parents=True)
    (toy_rig.kept / "auth_digest.key").touch()
    backend = toy_rig.backend
    toy_rig.host.programs["vstorage-mount"] = toy_rig.host.programs["vstorage"]
    assert backend.parse(toy_rig.good).password
    toy_rig.host.holds.add(Path(f"{toy_rig.at}.lock"))
    with pytest.raises(Uncertain):
        connect(toy_rig, toy_rig.good)
    assert toy_rig.passwords == []
