"""NFS, SMB, GlusterFS and GPFS against the back end contract: in memory, and on FUSE mounts."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mounted_rig import (
    CASES,
    FAMILY,
    NFS,
    SMB,
    Case,
    FuseRig,
    GivenRig,
    GpfsRig,
    ToyRig,
)
from mounts_rig import CLIENTS, tree

from lab.fuse import daemon as fuse
from moorline.backends.mounter import Mounter
from moorline.errors import Failed, NotOurs
from moorline.model import Broken, Foreign, Linked, Unlinked
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


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path


class TestMountedOnAToyHost(BackendContract):
    @pytest.fixture(params=CASES, ids=lambda case: case.kind)
    def rig(self, request: pytest.FixtureRequest, base: Path) -> BackendRig:
        return ToyRig(request.param, base)


class TestGivenOnAToyHost(BackendContract):
    @pytest.fixture(params=CASES, ids=lambda case: case.kind)
    def rig(self, request: pytest.FixtureRequest, base: Path) -> BackendRig:
        return GivenRig(request.param, base)


class TestGpfsOnAToyHost(BackendContract):
    @pytest.fixture
    def rig(self, base: Path) -> BackendRig:
        return GpfsRig(base)


@pytest.fixture
def fuse_directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    needs_fuse()
    directory = Path(tempfile.mkdtemp(prefix="moorline-"))
    monkeypatch.setenv("MOORLINE_LAB", str(directory / "lab"))
    monkeypatch.setenv("PATH", str(CLIENTS), prepend=os.pathsep)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def fuse_rig(request: pytest.FixtureRequest, fuse_directory: Path) -> Iterator[FuseRig]:
    rig = FuseRig(getattr(request, "param", NFS), fuse_directory)
    yield rig
    rig.tear_down()


@pytest.mark.lab
@pytest.mark.parametrize("fuse_rig", CASES, ids=lambda case: case.kind, indirect=True)
class TestMountedOnLinux(BackendContract):
    @pytest.fixture
    def rig(self, fuse_rig: FuseRig) -> BackendRig:
        return fuse_rig


# --- mounted by us ---


@FAMILY
def test_the_command_is_what_the_helper_takes(case: Case, base: Path) -> None:
    rig = ToyRig(case, base)
    rig.backend = Mounter(rig.host, case.backend("ro,x=1"), base, deadline=7)
    connect(rig, rig.good)
    (command,) = rig.host.ran
    options = ",".join(filter(None, (case.backend.always, "ro,x=1")))
    assert command.argv == (case.helper, case.share, rig.at, "-o", options)
    assert (command.deadline, command.outlives) == (7, True)
    disconnect(rig, rig.good)


def test_without_options_none_are_given(base: Path) -> None:
    rig = ToyRig(NFS, base)
    connect(rig, rig.good)
    assert rig.host.ran[0].argv == ("mount.nfs", NFS.share, rig.at)
    disconnect(rig, rig.good)


# --- SMB: credentials ---

USER = "username=eve,password=geheim=x,vers=3.1.1"


def smb(**more: Any) -> dict[str, Any]:
    connection: dict[str, Any] = SMB.connection(SMB.share, "volume-1", **more)
    return connection


@pytest.mark.lab
@pytest.mark.parametrize("fuse_rig", [SMB], ids=["smbfs"], indirect=True)
def test_smb_credentials_go_by_a_file_that_is_gone_afterwards(fuse_rig: FuseRig) -> None:
    fuse_rig.protect("eve", "geheim=x")
    connect(fuse_rig, smb(options=f"-o {USER}"))
    (call,) = fuse_rig.calls()
    path = f"{fuse_rig.at}.credentials"
    assert call == [
        "mount.cifs",
        SMB.share,
        fuse_rig.at,
        "-o",
        f"nobrl,vers=3.1.1,credentials={path}",
    ]
    assert not Path(path).exists()
    disconnect(fuse_rig, fuse_rig.good)
    assert fuse_rig.world() == ([], [])


@pytest.mark.lab
@pytest.mark.parametrize("fuse_rig", [SMB], ids=["smbfs"], indirect=True)
def test_smb_wrong_credentials_are_not_quoted_and_not_left(fuse_rig: FuseRig) -> None:
    fuse_rig.protect("eve", "right")
    with pytest.raises(Failed, match=r"mount.cifs exited 32: .*Permission denied") as failure:
        connect(fuse_rig, smb(options=USER))
    assert "geheim" not in str(failure.value)
    assert fuse_rig.world() == ([], [])


def test_smb_only_the_owner_can_read_the_credentials(base: Path) -> None:
    rig = ToyRig(SMB, base)
    seen = {}

    def helper(host: ToyHost, command: Command) -> None:
        path = Path(f"{command.argv[2]}.credentials")
        seen.update(mode=path.stat().st_mode & 0o7777, text=path.read_text())
        rig.helper(host, command)

    rig.host.programs["mount.cifs"] = helper
    left = Path(f"{rig.at}.credentials")
    left.write_text("what a crash left, for all to read")
    connect(rig, smb(options=USER))
    assert seen == {"mode": 0o600, "text": "username=eve\npassword=geheim=x\n"}
    assert not left.exists()
    assert "geheim" not in repr(rig.backend.parse(smb(options=USER)))
    disconnect(rig, rig.good)


def test_smb_what_a_crash_left_goes_with_the_share(base: Path) -> None:
    rig = ToyRig(SMB, base)
    Path(f"{rig.at}.credentials").write_text("password=x\n")
    disconnect(rig, rig.good)
    assert tree(base) == []


# --- mounted by the operator ---


@FAMILY
def test_a_given_share_that_is_not_mounted_is_the_operators_to_mount(
    case: Case, base: Path
) -> None:
    rig = GivenRig(case, base)
    rig.host.unmount(rig.at)
    assert isinstance(look(rig, rig.good), Unlinked)
    with pytest.raises(Failed, match="nothing is mounted"):
        connect(rig, rig.good)
    disconnect(rig, rig.good)
    assert rig.host.ran == []
    assert Path(rig.at).is_dir()


def test_a_given_path_where_something_else_is_mounted_is_foreign(base: Path) -> None:
    rig = GivenRig(NFS, base)
    rig.host.mount("tmpfs", rig.at, "tmpfs", ToyShare())
    assert isinstance(look(rig, rig.good), Foreign)
    with pytest.raises(NotOurs):
        connect(rig, rig.good)


def test_a_given_share_that_fails_is_told_and_left_to_the_operator(base: Path) -> None:
    rig = GivenRig(NFS, base)
    rig.host.share(rig.at).error = 116
    assert isinstance(look(rig, rig.good), Broken)
    with pytest.raises(Failed, match="the operator mounted it"):
        disconnect(rig, rig.good)
    assert rig.host.ran == []


@pytest.mark.lab
def test_a_given_directory_may_lie_within_its_mount(fuse_rig: FuseRig) -> None:
    at = fuse_rig.base / "srv"
    at.mkdir()
    fuse.start("fuse.nfs4", "filer:/all", str(fuse_rig.lab), str(at))
    backend = fuse_rig.make({NFS.share: at / "one"})
    c = backend.parse(fuse_rig.good)
    backend.connect(c)
    backend.verify(c)
    link = backend.inspect(c)
    assert isinstance(link, Linked)
    assert (link.source.path, link.given) == (at / "one/volume-1", True)
    backend.disconnect(c)
    assert (at / "one/volume-1").exists()


@pytest.mark.lab
def test_a_given_path_through_a_symbolic_link_is_refused(fuse_rig: FuseRig) -> None:
    at = fuse_rig.base / "srv"
    at.mkdir()
    fuse.start("fuse.nfs4", NFS.share, str(fuse_rig.lab / "one"), str(at))
    (fuse_rig.lab / "one/loop").symlink_to("/tmp")
    backend = fuse_rig.make({NFS.share: at / "loop"})
    link = backend.inspect(backend.parse(fuse_rig.good))
    assert isinstance(link, Foreign)
    assert "symbolic link" in link.reason


@pytest.mark.lab
def test_a_given_directory_that_is_not_there_is_told(fuse_rig: FuseRig) -> None:
    at = fuse_rig.base / "srv"
    at.mkdir()
    fuse.start("fuse.nfs4", "filer:/all", str(fuse_rig.lab), str(at))
    backend = fuse_rig.make({NFS.share: at / "gone"})
    link = backend.inspect(backend.parse(fuse_rig.good))
    assert isinstance(link, Broken)
    assert "No such file" in link.reason
