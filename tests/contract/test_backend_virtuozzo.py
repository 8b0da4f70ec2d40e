"""Virtuozzo Storage against the back end contract: in memory, and on a real FUSE mount."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lab.clients import standin
from lab.virtuozzo import Virtuozzo as Lab
from moorline.backends.virtuozzo import MountSettings, Virtuozzo
from moorline.errors import Failed, NotOurs, Uncertain
from moorline.host.linux import Linux
from moorline.host.mounts import read
from moorline.model import Caching, ImageFile, Linked, Unlinked
from moorline.ports import Command
from moorline.testing.contracts.backend import (
    BackendContract,
    BackendRig,
    connect,
    disconnect,
    look,
)
from moorline.testing.toy_host import ToyHost, ToyShare

CLIENTS = Path(__file__).parents[2] / "lab/clients"
SETTINGS = MountSettings(user="nobody", group="root", permissions="0777", log="")


def connection(export: str, name: str, format: str | None = "raw", **more: Any) -> dict[str, Any]:
    data = {"export": export, "name": name, "format": format, "options": None, **more}
    return {"driver_volume_type": "vzstorage", "data": data}


HOSTILE = {
    **{
        f"name {name!r}": connection("clu", name)
        for name in (
            "/etc/shadow",
            "../../etc/shadow",
            "a/../b",
            "..",
            ".",
            "",
            "a//b",
            "-o",
            "a\n",
        )
    },
    **{
        f"export {export!r}": connection(export, "volume-1")
        for export in (
            *("", ":", "clu:", ":pw", "-c:pw", "bad share!", "clu.ster", "mds1:/clu.ster:pw"),
            *("mds1:/", "mds1:/:pw", "mds1:/clu:", "mds 1:/clu", ",:/clu", "a,,b:/clu", "-a:/clu"),
            *("clu:/p w", "a:0:/clu", "a:99999:/clu", "clu:1234:/x", "mds1:7510:/clu:pw"),
            *("clu:p\nw", "clu:p\0w", "clu:" + "x" * 2000, "c" * 64, "[::1:/clu", "[zz::]:/clu"),
            *(",".join(["m"] * 33) + ":/clu", "vstorage://clu", "clu/sub", "../x", "clu\n"),
        )
    },
    "no format": connection("clu", "volume-1", None),
    "ploop": connection("clu", "volume-1", "ploop"),
    "options": connection("clu", "volume-1", options="-o allow_root"),
    "data is text": {"driver_volume_type": "vzstorage", "data": "clu"},
    "nothing": {},
}


class ToyRig(BackendRig):
    good = connection("mds1,mds2:/clu:geh:/eim", "volume-1")
    sibling = connection("mds1,mds2:/clu:geh:/eim", "dir/volume-2", "qcow2")
    other = connection("other", "volume-3")
    missing = connection("clu", "volume-9")
    hostile = HOSTILE
    respelled = (
        connection("mds2,MDS1:/clu:geh:/eim", "volume-1"),
        connection("clu:another password", "volume-1"),
        connection("clu", "volume-1"),
        {**connection("clu", "volume-1", volume_id="abc"), "serial": "abc"},
    )
    secrets = ("geh", "eim")

    def __init__(self, directory: Path, client: str = "vstorage") -> None:
        self.base = directory / "mnt"
        self.base.mkdir()
        self.client = client
        self.host = ToyHost({f"{client}-mount": self.mount, client: self.authenticate})
        self.configuration = directory / "etc"
        self.backend = self.make()
        self.at = self.backend.link_name(self.backend.parse(self.good))
        self.passwords: list[str] = []
        self.refusals = 0

    def make(self, **more: Any) -> Virtuozzo:
        return Virtuozzo(
            self.host,
            mount_point_base=self.base,
            configuration=self.configuration,
            has_command=self.host.programs.get,
            **more,
        )

    @property
    def kept(self) -> Path:
        return self.configuration / self.client / "clusters/clu"

    def authenticate(self, host: ToyHost, command: Command) -> None:
        assert command.stdin
        self.passwords.append(command.stdin.reveal())
        self.kept.mkdir(parents=True, exist_ok=True)
        (self.kept / "auth_digest.key").touch()

    def mount(self, host: ToyHost, command: Command) -> None:
        if self.refusals:
            self.refusals -= 1
            raise Failed("exited 1")
        cluster, at = command.argv[2:4]
        files = frozenset({"volume-1", "dir/volume-2", "volume-3"})
        source = f"{self.client}://{cluster}"
        host.mount(source, at, f"fuse.{self.client}", ToyShare(files=files))

    def world(self) -> object:
        return list(self.host.table), tree(self.base)

    def kill(self) -> None:
        self.host.share(self.at).error = 107

    def hang(self) -> None:
        self.host.share(self.at).hangs = True

    def heal(self) -> None:
        self.host.share(self.at).hangs = False

    def usurp(self) -> None:
        self.host.mount("tmpfs", self.at, "tmpfs", ToyShare())

    def remove(self) -> None:
        self.host.unmount(self.at)

    def argvs(self) -> list[tuple[str, ...]]:
        return [command.argv for command in self.host.ran]


def tree(base: Path) -> list[str]:
    """The mount points and holds, without looking into what is mounted.

    The node's configuration is not looked at: a node stays authenticated.
    """
    return sorted(path.name for path in base.iterdir()) if base.exists() else []


def mutable(base: Path) -> None:
    """Immutable directories would stay for ever."""
    for left in base.iterdir():
        subprocess.run(["chattr", "-i", left], check=False, capture_output=True)


@pytest.fixture
def toy_rig(tmp_path: Path) -> Iterator[ToyRig]:
    rig = ToyRig(tmp_path)
    yield rig
    mutable(rig.base)


@pytest.fixture
def old_rig(tmp_path: Path) -> Iterator[ToyRig]:
    rig = ToyRig(tmp_path, "pstorage")
    yield rig
    mutable(rig.base)


class TestVirtuozzoOnAToyHost(BackendContract):
    @pytest.fixture
    def rig(self, toy_rig: ToyRig) -> BackendRig:
        return toy_rig


class TestOldVirtuozzoOnAToyHost(BackendContract):
    @pytest.fixture
    def rig(self, old_rig: ToyRig) -> BackendRig:
        return old_rig


class FuseRig(BackendRig):
    """The stand-in client and a real FUSE mount, beneath a temporary directory."""

    patience = 4.0
    hostile = HOSTILE
    secrets = ("geh", "eim")

    def __init__(self, directory: Path, etc: Path) -> None:
        self.base = directory / "mnt"
        self.base.mkdir()
        self.lab = Lab(directory / "lab")
        self.cluster = self.lab.cluster("clu", password="geh:/eim")
        second = self.lab.cluster("other", servers=())
        self.cluster.disk("volume-1")
        (self.cluster.path / "dir").mkdir()
        self.cluster.disk("dir/volume-2")
        second.disk("volume-3")
        os.mkfifo(self.cluster.path / "fifo")
        (self.cluster.path / "link").symlink_to("/etc/shadow")
        self.good = self.cluster.connection("volume-1")
        self.sibling = self.cluster.connection("dir/volume-2")
        self.other = second.connection("volume-3")
        self.missing = self.cluster.connection("volume-9")
        self.unfit = {
            "a FIFO": self.cluster.connection("fifo"),
            "a directory": self.cluster.connection("dir"),
            "a way out": self.cluster.connection("link"),
            "raw declared qcow2": self.cluster.connection("volume-1", "qcow2"),
        }
        self.host = Linux(look_deadline=0.5)
        self.etc = etc
        self.backend = self.make()
        self.at = self.backend.link_name(self.backend.parse(self.good))

    def make(self, deadline: float = 10, given: Mapping[str, Path] | None = None) -> Virtuozzo:
        return Virtuozzo(
            self.host,
            mount_point_base=self.base,
            settings=SETTINGS,
            configuration=self.etc,
            given=given,
            deadline=deadline,
        )

    @property
    def kept(self) -> Path:
        return self.etc / "vstorage/clusters/clu"

    def world(self) -> object:
        return [m.target for m in read() if m.target.startswith(str(self.base))], tree(self.base)

    def kill(self) -> None:
        self.cluster.daemon(die=True)
        with suppress(OSError):
            while os.statvfs(self.at):  # its next request is its last
                pass
        self.cluster.daemon()

    def hang(self) -> None:
        self.cluster.daemon(hang=True)

    def heal(self) -> None:
        self.cluster.daemon()

    def usurp(self) -> None:
        Path(self.at).mkdir()
        standin.mount("none", self.at, "tmpfs")

    def remove(self) -> None:
        standin.umount(self.at)
        # As after a reboot: neither mount nor daemon.
        until = time.monotonic() + 5
        while self.host.held(Path(f"{self.at}.lock")) and time.monotonic() < until:
            time.sleep(0.01)

    def tear_down(self) -> None:
        self.cluster.daemon()
        self.host.close()
        for mount in reversed(read()):
            if mount.target.startswith(str(self.base)):
                standin.umount(mount.target)
        mutable(self.base)


@pytest.fixture
def fuse_rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[FuseRig]:
    if os.geteuid() != 0 or not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("needs root and /dev/fuse")
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
