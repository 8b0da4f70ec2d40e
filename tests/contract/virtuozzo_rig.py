"""Virtuozzo Storage for tests of its back end: a toy host, and the stand-in client on FUSE."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mounts_rig import OnFuse, OnToyHost

from lab.virtuozzo.cluster import Virtuozzo as Lab
from moorline.backends.virtuozzo import FileOrPloop, Virtuozzo
from moorline.backends.virtuozzo_settings import MountSettings
from moorline.errors import Failed
from moorline.host.linux import Linux
from moorline.ports import Command
from moorline.testing.toy_host import ToyHost, ToyShare

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
    "ploop with a space": connection("clu", "a volume", "ploop"),
    "options": connection("clu", "volume-1", options="-o allow_root"),
    "data is text": {"driver_volume_type": "vzstorage", "data": "clu"},
    "nothing": {},
}


class ToyRig(OnToyHost):
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

    def make(self, settings: MountSettings = SETTINGS) -> FileOrPloop:
        virtuozzo = Virtuozzo(
            settings, configuration=self.configuration, has_command=self.host.programs.get
        )
        return virtuozzo.on(self.host, mount_point_base=self.base)

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

    def argvs(self) -> list[tuple[str, ...]]:
        return [command.argv for command in self.host.ran]


class FuseRig(OnFuse):
    """The stand-in client and a real FUSE mount, beneath a temporary directory."""

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
        self.host = Linux(look_deadline=1.5)
        self.etc = etc
        self.backend = self.make()
        self.at = self.backend.link_name(self.backend.parse(self.good))

    def make(self, deadline: float = 10, given: Mapping[str, Path] | None = None) -> FileOrPloop:
        return Virtuozzo(SETTINGS, configuration=self.etc).on(
            self.host, mount_point_base=self.base, given=given, deadline=deadline
        )

    @property
    def kept(self) -> Path:
        return self.etc / "vstorage/clusters/clu"

    def daemon(self, **control: Any) -> None:
        self.cluster.daemon(**control)
