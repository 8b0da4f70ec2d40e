"""NFS, SMB, GlusterFS and GPFS against the back end contract: in memory, and on FUSE mounts.

This kernel may know neither NFS nor SMB, so on FUSE the stand-in helpers mount and the types
in the mount table are those of FUSE: ``types`` is the one fact that differs there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest

from lab import fuse
from lab.clients import standin
from lab.quobyte import replace
from moorline.backends.mounted import GlusterFs, Gpfs, Mounted, Nfs, Smbfs
from moorline.errors import Failed, NotOurs
from moorline.host.linux import Linux
from moorline.host.mounts import read
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

CLIENTS = Path(__file__).parents[2] / "lab/clients"
FILES = frozenset({"volume-1", "dir/volume-2", "volume-3"})
NAMES = ("/etc/shadow", "../../etc/shadow", "a/../b", "..", ".", "", "a//b", "-o", "a\n")


class Case:
    """A file system: its class, shares, and other spellings of the first share."""

    def __init__(
        self, backend: type[Mounted], fuse_type: str, share: str, other: str, *respelled: str
    ) -> None:
        self.backend = backend
        self.kind = backend.kind
        self.helper = backend.helper
        self.fuse_type = fuse_type
        self.share = share
        self.other = other
        self.respelled = respelled

    def connection(self, export: str, name: str, format: str | None = "raw", **more: Any) -> Any:
        data = {"export": export, "name": name, "format": format, "options": None, **more}
        return {"driver_volume_type": self.kind, "data": data}

    def hostile(self) -> dict[str, Any]:
        host, path = self.share.rsplit("/", 1)
        exports = [
            "",
            "/",
            "host",
            path,
            f"-o{self.share}",
            f"{self.share} -o x",
            f"{self.share}\n",
        ]
        exports += [
            f"{host}/../{path}",
            f"{self.share}/..",
            f"{self.share},ro",
            f"{self.share} x",
        ]
        exports += [f"x{self.share} ", "file:///etc", f"é{self.share}", "h" * 300 + self.share]
        return {
            **{f"name {name!r}": self.connection(self.share, name) for name in NAMES},
            **{f"export {text!r}": self.connection(text, "volume-1") for text in exports},
            "no format": self.connection(self.share, "volume-1", None),
            "ploop": self.connection(self.share, "volume-1", "ploop"),
            "options": self.connection(self.share, "volume-1", options="-o suid,x-mount.mkdir"),
            "an option's end": self.connection(self.share, "volume-1", options="-o"),
        }


NFS = Case(
    *(Nfs, "fuse.nfs4", "filer.example.com:/vol/one", "filer.example.com:/vol/two"),
    *("FILER.example.com:/vol/one", "filer.example.com:/vol/one/"),
)
SMB = Case(
    *(Smbfs, "fuse.cifs", "//filer/one", "//filer/two"),
    *("//FILER/One", "//filer/one/", r"\\filer\one"),
)
GLUSTER = Case(
    *(GlusterFs, "fuse.glusterfs", "g1:/one", "g1:/two"),
    *("G1:/one", "g1:one", "g1:/one/"),
)
CASES = [NFS, SMB, GLUSTER]
FAMILY = pytest.mark.parametrize("case", CASES, ids=lambda case: case.kind)


class Rig(BackendRig):
    """What is alike in memory and on FUSE."""

    backend: Mounted

    def __init__(self, case: Case, base: Path) -> None:
        self.case = case
        self.base = base
        self.good = case.connection(case.share, "volume-1")
        self.sibling = case.connection(case.share, "dir/volume-2", "qcow2")
        self.other = case.connection(case.other, "volume-3")
        self.missing = case.connection(case.share, "volume-9")
        self.hostile = case.hostile()
        self.respelled = [case.connection(share, "volume-1") for share in case.respelled]

    @property
    def at(self) -> str:
        return self.backend.link_name(self.backend.parse(self.good))


class ToyRig(Rig):
    def __init__(self, case: Case, base: Path) -> None:
        super().__init__(case, base)
        self.host = ToyHost({case.helper: self.helper})
        self.backend = case.backend(self.host, mount_point_base=base)

    def helper(self, host: ToyHost, command: Command) -> None:
        (fstype, *_) = sorted(self.case.backend.types)
        host.mount(command.argv[1], command.argv[2], fstype, ToyShare(size=4096, files=FILES))

    def world(self) -> object:
        return list(self.host.table), tree(self.base)

    def kill(self) -> None:
        self.host.share(self.at).error = 116  # ESTALE

    def hang(self) -> None:
        self.host.share(self.at).hangs = True

    def heal(self) -> None:
        self.host.share(self.at).hangs = False

    def usurp(self) -> None:
        self.host.mount("tmpfs", self.at, "tmpfs", ToyShare())

    def remove(self) -> None:
        self.host.unmount(self.at)


class GivenRig(ToyRig):
    """Shares that the operator mounted: nothing is mounted nor unmounted."""

    given = True

    def __init__(self, case: Case, base: Path) -> None:
        super().__init__(case, base)
        paths = {share: base / name for share, name in ((case.share, "1"), (case.other, "2"))}
        self.backend = case.backend(self.host, mount_point_base=base, given=paths)
        for path in paths.values():
            path.mkdir()
            (fstype, *_) = sorted(case.backend.types)
            # By another of the server's names, as an operator may.
            self.host.mount("alias:/x", str(path), fstype, ToyShare(size=4096, files=FILES))

    def kill(self) -> None:
        pytest.skip("what the operator mounted is not renewed by us")

    usurp = remove = kill


class GpfsRig(GivenRig):
    """GPFS has paths instead of shares."""

    def __init__(self, base: Path) -> None:
        BackendRig.__init__(self)
        self.base = base
        self.host = ToyHost()
        bases = [base / "fs1", base / "fs1/two"]
        self.backend = Gpfs(self.host, bases=bases)
        for path in bases:
            path.mkdir()
            self.host.mount("fs1", str(path), "gpfs", ToyShare(size=4096, files=FILES))
        self.good = self.connection("fs1/volume-1")
        self.sibling = self.connection("fs1/dir/volume-2", format="qcow2")
        self.other = self.connection("fs1/two/volume-3")
        self.missing = self.connection("fs1/volume-9")
        self.respelled = [self.connection("fs1/volume-1", name="x", options=None)]
        self.hostile = {
            **{
                path: self.connection(path)
                for path in ("fs1", "fs1/", "fs2/x", "fs1/../fs2/x", "fs1//x", "fs1/-x", "fs1/x\n")
            },
            "ploop": self.connection("fs1/x", format="ploop"),
            "not absolute": {"driver_volume_type": "gpfs", "data": {"device_path": "fs1/x"}},
            "nothing": {"driver_volume_type": "gpfs", "data": {}},
            "options": self.connection("fs1/x", options="-o suid"),
        }

    def connection(self, path: str, **more: Any) -> dict[str, Any]:
        data = {"name": "volume", "device_path": f"{self.base}/{path}", **more}
        return {"driver_volume_type": "gpfs", "data": data}


def tree(base: Path) -> list[str]:
    """The mount points and holds, without looking into what is mounted."""
    return sorted(path.name for path in base.iterdir())


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for left in tmp_path.iterdir():  # immutable directories would stay for ever
        subprocess.run(["chattr", "-i", left], check=False, capture_output=True)


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


class FuseRig(Rig):
    """The stand-in helper and a real FUSE mount, beneath a temporary directory."""

    patience = 4.0

    def __init__(self, case: Case, directory: Path) -> None:
        base = directory / "mnt"
        base.mkdir()
        super().__init__(case, base)
        self.lab = directory / "lab/mounted"
        self.lab.mkdir(parents=True)
        for name, file in (("one", "volume-1"), ("two", "volume-3")):
            (self.lab / name).mkdir()
            image(self.lab / name / file)
        (self.lab / "one/dir").mkdir()
        image(self.lab / "one/dir/volume-2")
        os.mkfifo(self.lab / "one/fifo")
        (self.lab / "one/link").symlink_to("/etc/shadow")
        (self.lab / "calls.jsonl").touch()
        self.shares = {share: {"directory": share[-3:]} for share in (case.share, case.other)}
        replace(self.lab / "shares.json", self.shares)
        self.sibling = case.connection(case.share, "dir/volume-2")
        self.unfit = {
            name: case.connection(case.share, name) for name in ("fifo", "dir", "link")
        } | {"raw as qcow2": case.connection(case.share, "volume-1", "qcow2")}
        self.host = Linux(look_deadline=0.5)
        self.backend = self.make()

    def make(self, given: Mapping[str, Path] | None = None) -> Mounted:
        class OnFuse(self.case.backend):  # type: ignore[misc, name-defined]
            types: ClassVar[frozenset[str]] = frozenset({self.case.fuse_type})

        made: Mounted = OnFuse(self.host, mount_point_base=self.base, given=given, deadline=10)
        return made

    def protect(self, username: str, password: str) -> None:
        self.shares[self.case.share].update(username=username, password=password)
        replace(self.lab / "shares.json", self.shares)

    def calls(self) -> list[list[str]]:
        return [json.loads(line)["argv"] for line in (self.lab / "calls.jsonl").open()]

    def daemon(self, **control: Any) -> None:
        replace(self.lab / "one.json", control)

    def world(self) -> object:
        return [m.target for m in read() if m.target.startswith(str(self.base))], tree(self.base)

    def kill(self) -> None:
        self.daemon(die=True)
        with suppress(OSError):
            while os.statvfs(self.at):  # its next request is its last
                pass
        self.daemon()

    def hang(self) -> None:
        self.daemon(hang=True)

    def heal(self) -> None:
        self.daemon()

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
        self.daemon()
        self.host.close()
        for mount in reversed(read()):
            if mount.target.startswith(str(self.base)):
                standin.umount(mount.target)
        for left in self.base.iterdir():
            subprocess.run(["chattr", "-i", left], check=False, capture_output=True)


def image(path: Path) -> None:
    with path.open("xb") as file:
        file.truncate(1 << 20)


@pytest.fixture
def fuse_directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    if os.geteuid() != 0 or not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("needs root and /dev/fuse")
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
    rig.backend = case.backend(rig.host, mount_point_base=base, mount_options="ro,x=1", deadline=7)
    connect(rig, rig.good)
    (command,) = rig.host.ran
    assert command.argv == (case.helper, case.share, rig.at, "-o", "ro,x=1")
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
    assert call == ["mount.cifs", SMB.share, fuse_rig.at, "-o", f"vers=3.1.1,credentials={path}"]
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
