"""Quobyte against the back end contract: on a host in memory, and on a real FUSE mount."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mounts_rig import CLIENTS, OnFuse, OnToyHost

from lab import standin
from lab.fuse import daemon as fuse
from lab.quobyte.cluster import Quobyte as Cluster
from moorline.backends.mounter import Mounter
from moorline.backends.quobyte import Quobyte
from moorline.errors import Failed, NotOurs, Uncertain
from moorline.host.linux import Linux
from moorline.host.mount.table import mount_at, read
from moorline.model import Foreign, Linked, Unknown, Unlinked
from moorline.ports import Command
from moorline.testing.contracts.backend import (
    BackendContract,
    BackendRig,
    connect,
    disconnect,
    look,
)
from moorline.testing.toy_host import ToyHost, ToyShare
from tests.support.missing import needs_fuse


def connection(export: str, name: str, format: str | None = "raw", **more: Any) -> dict[str, Any]:
    data = {"export": export, "name": name, "format": format, "options": None, **more}
    return {"driver_volume_type": "quobyte", "data": data}


GOOD = connection("reg1,reg2/vol", "volume-1")
HOSTILE = {
    **{
        f"name {name!r}": connection("reg1/vol", name)
        for name in (
            *("/etc/shadow", "../../etc/shadow", "a/../../b", "..", ".", "", "a//b", "a/", "/"),
            *("-o", "a/-rf", "a\nb", "a\0b", "a\x1b[2J", "a\u202eb", "\ud800", "x" * 256),
            "/".join(["x" * 200] * 6),
        )
    },
    **{
        f"export {export!r}": connection(export, "volume-1")
        for export in (
            *("", "/", "reg1", "reg1/", "/vol", "reg1/a/b", "reg1/..", "reg1/-o", "-o/vol"),
            *("reg1 -o allow_root/vol", "reg1,,reg2/vol", "reg1:0/vol", "reg1:99999/vol"),
            *("reg1:x/vol", "[::1/vol", "[zz::1]/vol", "reg1/vol -c /tmp/x", "reg1/vol\n"),
            *("quobyte://", "quobyte://quobyte://reg1/vol", "nfs://reg1/vol", "a@reg1/vol"),
            *("r" * 300 + "/vol", ",".join(["r"] * 33) + "/vol", "réг/vol", "reg1/v" + "o" * 200),
        )
    },
    "no format": connection("reg1/vol", "volume-1", None),
    "options": connection("reg1/vol", "volume-1", options="-o allow_root"),
    "data is text": {"driver_volume_type": "quobyte", "data": "reg1/vol"},
    "nothing": {},
}


class ToyRig(OnToyHost):
    good = GOOD
    sibling = connection("reg1,reg2/vol", "dir/volume-2", "qcow2")
    other = connection("reg1,reg2/vol2", "volume-3")
    missing = connection("reg1,reg2/vol", "volume-9")
    hostile = HOSTILE
    respelled = (
        connection("quobyte://reg1,reg2/vol", "volume-1"),
        connection("REG2,reg1/vol", "volume-1"),
        {"driver_volume_type": "quobyte", **GOOD["data"], "attachment_id": "x"},
        {**connection("reg1,reg2/vol", "volume-1", auth_password="geheim"), "serial": "abc"},
    )
    secrets = ("geheim",)

    def __init__(self, base: Path) -> None:
        self.base = base
        self.host = ToyHost({"mount.quobyte": self.client})
        self.backend = Mounter(self.host, Quobyte(), base)
        self.at = self.backend.link_name(self.backend.parse(GOOD))

    def client(self, host: ToyHost, command: Command) -> None:
        registries, _, volume = command.argv[2].partition("/")
        files = frozenset({"volume-1", "dir/volume-2", "volume-3"})
        source = f"quobyte@{registries.replace(',', '|')}/{volume}"
        host.mount(source, command.argv[3], "fuse.quobyte", ToyShare(files=files))


class TestQuobyteOnAToyHost(BackendContract):
    @pytest.fixture
    def rig(self, tmp_path: Path) -> BackendRig:
        return ToyRig(tmp_path)


class FuseRig(OnFuse):
    """The stand-in client and a real FUSE mount, beneath a temporary directory."""

    hostile = HOSTILE

    def __init__(self, directory: Path) -> None:
        self.base = directory / "mnt"
        self.base.mkdir()
        self.cluster = Cluster(directory / "lab")
        self.volume, second = self.cluster.volume("vol"), self.cluster.volume("vol2")
        self.volume.disk("volume-1")
        (self.volume.path / "dir").mkdir()
        self.volume.disk("dir/volume-2")
        second.disk("volume-3")
        os.mkfifo(self.volume.path / "fifo")
        (self.volume.path / "qcow2").write_bytes(b"QFI\xfb" + bytes(600))
        self.good = self.volume.connection("volume-1")
        self.sibling = self.volume.connection("dir/volume-2")
        self.other = second.connection("volume-3")
        self.missing = self.volume.connection("volume-9")
        self.unfit = {
            "a FIFO": self.volume.connection("fifo"),
            "a directory": self.volume.connection("dir"),
            "qcow2 declared raw": self.volume.connection("qcow2"),
            "raw declared qcow2": self.volume.connection("volume-1", "qcow2"),
            "an unsound qcow2": self.volume.connection("qcow2", "qcow2"),
        }
        self.host = Linux(look_deadline=1.5)
        self.backend = Mounter(self.host, Quobyte(), self.base, deadline=10)
        self.at = self.backend.link_name(self.backend.parse(self.good))

    def daemon(self, **control: Any) -> None:
        self.volume.daemon(**control)


@pytest.fixture
def fuse_rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[FuseRig]:
    needs_fuse()
    directory = Path(tempfile.mkdtemp(prefix="moorline-"))
    directory.chmod(0o755)  # other users mount, too; pytest's own is closed to them
    monkeypatch.setenv("MOORLINE_LAB", str(directory / "lab"))
    monkeypatch.setenv("PATH", str(CLIENTS), prepend=os.pathsep)
    rig = FuseRig(directory)
    yield rig
    rig.tear_down()
    shutil.rmtree(directory)


@pytest.mark.lab
class TestQuobyteOnLinux(BackendContract):
    @pytest.fixture
    def rig(self, fuse_rig: FuseRig) -> BackendRig:
        return fuse_rig


def parsed(rig: FuseRig) -> Any:
    return rig.backend.parse(rig.good)


@pytest.mark.lab
def test_nova_defect_1_a_client_that_lies_is_not_believed(fuse_rig: FuseRig) -> None:
    fuse_rig.volume.command(lie=True)
    with pytest.raises(Failed, match="nothing is mounted"):
        connect(fuse_rig, fuse_rig.good)
    assert fuse_rig.world() == ([], [])


@pytest.mark.lab
def test_nova_defect_1_another_file_system_in_its_place_is_not_success(fuse_rig: FuseRig) -> None:
    fuse_rig.volume.command(other="tmpfs")
    with pytest.raises(NotOurs):
        connect(fuse_rig, fuse_rig.good)
    assert isinstance(look(fuse_rig, fuse_rig.good), Foreign)


@pytest.mark.lab
def test_a_mount_of_another_volume_is_foreign(fuse_rig: FuseRig) -> None:
    fuse_rig.volume.command(source="quobyte@reg1/vol2")
    with pytest.raises(NotOurs):
        connect(fuse_rig, fuse_rig.good)


@pytest.mark.lab
@pytest.mark.parametrize("client", ["1.x", "2.x"])
def test_old_and_new_clients_are_recognised(fuse_rig: FuseRig, client: str) -> None:
    fuse_rig.volume.command(client=client)
    connect(fuse_rig, fuse_rig.good)
    assert isinstance(look(fuse_rig, fuse_rig.good), Linked)
    disconnect(fuse_rig, fuse_rig.good)


@pytest.mark.lab
def test_nova_defect_3_busy_is_seen_in_the_mount_table_and_told_with_names(
    fuse_rig: FuseRig,
) -> None:
    connect(fuse_rig, fuse_rig.good)
    with (
        Path(fuse_rig.at, "volume-1").open("rb"),
        pytest.raises(Failed, match=rf"in use by .*\({os.getpid()}\)"),
    ):
        disconnect(fuse_rig, fuse_rig.good)
    assert isinstance(look(fuse_rig, fuse_rig.good), Linked)
    disconnect(fuse_rig, fuse_rig.good)
    assert fuse_rig.world() == ([], [])


@pytest.mark.lab
def test_nothing_can_be_written_where_nothing_is_mounted(fuse_rig: FuseRig) -> None:
    connect(fuse_rig, fuse_rig.good)
    fuse_rig.remove()
    with pytest.raises(PermissionError):
        Path(fuse_rig.at, "volume-1").write_bytes(b"lost")
    assert Path(fuse_rig.at).stat().st_mode & 0o777 == 0
    disconnect(fuse_rig, fuse_rig.good)
    assert fuse_rig.world() == ([], [])


@pytest.mark.lab
def test_what_lies_beneath_a_mount_point_is_told_and_kept(fuse_rig: FuseRig) -> None:
    Path(fuse_rig.at).mkdir()
    dirt = Path(fuse_rig.at, "volume-1")
    dirt.write_bytes(b"written while it was not mounted")
    link = look(fuse_rig, fuse_rig.good)
    assert isinstance(link, Foreign)
    assert "not empty" in link.reason
    with pytest.raises(NotOurs):
        connect(fuse_rig, fuse_rig.good)
    disconnect(fuse_rig, fuse_rig.good)
    assert dirt.read_bytes() == b"written while it was not mounted"


@pytest.mark.lab
def test_stacked_mounts_go_one_by_one(fuse_rig: FuseRig) -> None:
    connect(fuse_rig, fuse_rig.good)
    fuse.start("fuse.quobyte", "quobyte@reg1/vol", str(fuse_rig.volume.path), fuse_rig.at)
    assert isinstance(look(fuse_rig, fuse_rig.good), Linked)
    disconnect(fuse_rig, fuse_rig.good)
    assert isinstance(look(fuse_rig, fuse_rig.good), Linked)
    disconnect(fuse_rig, fuse_rig.good)
    assert fuse_rig.world() == ([], [])


@pytest.mark.lab
def test_a_mount_command_that_hangs_is_killed_and_uncertain(fuse_rig: FuseRig) -> None:
    fuse_rig.volume.command(hang=True)
    hasty = Mounter(fuse_rig.host, Quobyte(), fuse_rig.base, deadline=0.3)
    with pytest.raises(Uncertain):
        hasty.connect(parsed(fuse_rig))
    assert fuse_rig.world() == ([], [])
    assert isinstance(hasty.inspect(parsed(fuse_rig)), Unlinked)


@pytest.mark.lab
def test_the_mount_command_of_a_killed_owner_is_waited_for(fuse_rig: FuseRig) -> None:
    fuse_rig.volume.command(slow=2.0)
    owner = os.fork()
    if not owner:
        fuse_rig.backend.connect(parsed(fuse_rig))
        os._exit(0)
    while not isinstance(look(fuse_rig, fuse_rig.good), Unknown):  # until its command has begun
        time.sleep(0.01)
    os.kill(owner, 9)
    os.waitpid(owner, 0)
    assert isinstance(look(fuse_rig, fuse_rig.good), Unknown)
    with pytest.raises(Uncertain):
        connect(fuse_rig, fuse_rig.good)
    with pytest.raises(Uncertain):
        disconnect(fuse_rig, fuse_rig.good)
    until = time.monotonic() + 10
    while isinstance(look(fuse_rig, fuse_rig.good), Unknown) and time.monotonic() < until:
        time.sleep(0.05)
    assert isinstance(look(fuse_rig, fuse_rig.good), Linked)
    assert len([m for m in read() if m.target == fuse_rig.at]) == 1
    disconnect(fuse_rig, fuse_rig.good)


@pytest.mark.lab
def test_a_root_that_has_a_size_is_no_live_quobyte_mount(fuse_rig: FuseRig) -> None:
    Path(fuse_rig.at).mkdir()
    standin.mount("quobyte@reg1/vol", fuse_rig.at, "ramfs")
    mount = mount_at(read(), fuse_rig.at)
    assert mount is not None
    assert isinstance(look(fuse_rig, fuse_rig.good), Foreign), "the type tells, not the source"


@pytest.mark.lab
def test_the_volume_is_checked_on_the_mount_not_beneath_it(fuse_rig: FuseRig) -> None:
    with pytest.raises(Failed, match="nothing is mounted"):
        fuse_rig.backend.verify(parsed(fuse_rig))


@pytest.mark.lab
def test_a_client_that_fails_is_quoted_and_nothing_is_left(fuse_rig: FuseRig) -> None:
    fuse_rig.volume.command(fail={"code": 32, "stderr": "no route to registry"})
    with pytest.raises(Failed, match=r"mount.quobyte exited 32: .*no route to registry"):
        connect(fuse_rig, fuse_rig.good)
    assert fuse_rig.world() == ([], [])


@pytest.mark.lab
def test_a_client_that_did_it_and_failed_is_believed_by_its_mount(fuse_rig: FuseRig) -> None:
    fuse_rig.volume.command(fail_after={"code": 4, "stderr": "already mounted"})
    with pytest.raises(Failed):
        connect(fuse_rig, fuse_rig.good)
    connect(fuse_rig, fuse_rig.good)  # the second look finds it
    disconnect(fuse_rig, fuse_rig.good)


@pytest.mark.lab
def test_the_client_runs_as_the_mount_user(
    fuse_rig: FuseRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The checkout may lie where nobody else can go.
    reachable = shutil.copytree(CLIENTS.parent, fuse_rig.base.parent / "reachable/lab")
    monkeypatch.setenv("PATH", str(reachable / CLIENTS.name), prepend=os.pathsep)
    backend = Mounter(fuse_rig.host, Quobyte(), fuse_rig.base, user="nobody")
    with pytest.raises(Failed):  # without fusermount it cannot mount, but it notes who it is
        backend.connect(parsed(fuse_rig))
    assert [call["uid"] for call in fuse_rig.cluster.calls()] == [65534]
    assert fuse_rig.world() == ([], [])


def test_the_command_is_what_the_client_takes(tmp_path: Path) -> None:
    rig = ToyRig(tmp_path)
    backend = Mounter(
        rig.host, Quobyte(Path("/etc/quobyte/client.cfg")), tmp_path, user="nobody", deadline=7
    )
    backend.connect(backend.parse(GOOD))
    (command,) = rig.host.ran
    assert command.argv == (
        *("mount.quobyte", "--disable-xattrs", "reg1,reg2/vol", rig.at),
        *("-c", "/etc/quobyte/client.cfg"),
    )
    assert (command.user, command.deadline, command.outlives) == ("nobody", 7, True)
    backend.disconnect(backend.parse(GOOD))
    assert rig.host.ran[-1].argv == ("umount", "-c", rig.at)
