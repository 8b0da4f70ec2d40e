"""The mounted family for tests of its back ends: a toy host, and stand-in helpers on FUSE.

This kernel may know neither NFS nor SMB, so on FUSE the types in the mount table are those
of FUSE: ``types`` is the one fact that differs there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from mounts_rig import OnFuse, OnToyHost

from lab.quobyte.cluster import replace
from moorline.backends.mounted import GlusterFs, Gpfs, Mounted, MountedFile, Nfs, Smbfs
from moorline.backends.mounter import Mounter
from moorline.host.linux import Linux
from moorline.ports import Command
from moorline.testing.contracts.backend import BackendRig
from moorline.testing.toy_host import ToyHost, ToyShare

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

    backend: Mounter[MountedFile]

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


class ToyRig(Rig, OnToyHost):
    dead = 116  # ESTALE

    def __init__(self, case: Case, base: Path) -> None:
        super().__init__(case, base)
        self.host = ToyHost({case.helper: self.helper})
        self.backend = Mounter(self.host, case.backend(), base)

    def helper(self, host: ToyHost, command: Command) -> None:
        (fstype, *_) = sorted(self.case.backend.types)
        host.mount(command.argv[1], command.argv[2], fstype, ToyShare(size=4096, files=FILES))


class GivenRig(ToyRig):
    """Shares that the operator mounted: nothing is mounted nor unmounted."""

    given = True

    def __init__(self, case: Case, base: Path) -> None:
        super().__init__(case, base)
        paths = {share: base / name for share, name in ((case.share, "1"), (case.other, "2"))}
        self.backend = Mounter(self.host, case.backend(), base, given=paths)
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
        self.backend = Gpfs.from_options(
            self.host, {"gpfs_mount_point_base": ",".join(map(str, bases))}
        )
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


class FuseRig(Rig, OnFuse):
    """The stand-in helper and a real FUSE mount, beneath a temporary directory."""

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
        self.host = Linux(look_deadline=1.5)
        self.backend = self.make()

    def make(self, given: Mapping[str, Path] | None = None) -> Mounter[MountedFile]:
        class AsFuse(self.case.backend):  # type: ignore[misc, name-defined]
            types: ClassVar[frozenset[str]] = frozenset({self.case.fuse_type})

        made: Mounted = AsFuse()
        return Mounter(self.host, made, self.base, given=given, deadline=10)

    def protect(self, username: str, password: str) -> None:
        self.shares[self.case.share].update(username=username, password=password)
        replace(self.lab / "shares.json", self.shares)

    def calls(self) -> list[list[str]]:
        return [json.loads(line)["argv"] for line in (self.lab / "calls.jsonl").open()]

    def daemon(self, **control: Any) -> None:
        replace(self.lab / "one.json", control)


def image(path: Path) -> None:
    with path.open("xb") as file:
        file.truncate(1 << 20)
