"""File systems that ``mount.TYPE`` mounts, or the operator: NFS, SMB, GlusterFS, GPFS.

:mod:`moorline.backends.mounter` does the work; here are the facts of each.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from moorline.backends.connection_info import (
    ConnectionInfo,
    absolute_path,
    file_name,
    given_mounts,
    typed,
)
from moorline.backends.filesystem import FileOnShare, FileSystem
from moorline.backends.mount_point import MountPoint
from moorline.backends.mounter import Mounter
from moorline.backends.share_spelling import server_name
from moorline.errors import Failed, Refused
from moorline.model import Caching, Format, LinkName
from moorline.ports import Host, Mount, Option, Values
from moorline.secret import Secret

FORMATS: tuple[Format, ...] = ("raw", "qcow2", "luks")

_HOST = r"(?P<host>[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}|\[[0-9A-Fa-f:.]{2,45}\])"
# Characters that separate or escape mount options cannot be in names.
_PART = r"[^/,\\\s]+"
_VOLUME_CHARACTERS = "a volume's name has A-Z a-z 0-9 _ - alone"
_CHARACTERS = "its names may have all characters but blanks, commas and backslashes"


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _options(kind: str, more: str = "") -> tuple[Option, ...]:
    return (
        Option(
            f"{kind}_mount_point_base",
            "${moorline.state_dir}/mnt",
            f"Directory of the mount points of {kind} shares.",
        ),
        Option(f"{kind}_mount_options", "", f"Options for mount.{more or kind} (-o), as they are."),
        Option(
            f"{kind}_mounted", "", "Shares that the operator mounts: SHARE=/path, comma-separated."
        ),
        Option(
            f"{kind}_mount_points",
            "",
            f"Where shares are mounted instead, as {kind}_mounted: for mounts that Nova made.",
        ),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class MountedFile(FileOnShare):
    """A disk image on a share, and how its connection wants the share mounted."""

    mount_options: Mapping[str, str] = field(default_factory=dict)
    credentials: Secret[Mapping[str, str]] | None = None


class Mounted(FileSystem[MountedFile]):
    """A file system of which ``mount.TYPE SHARE DIRECTORY -o OPTIONS`` makes mounts.

    *mount_options*: for every mount; a connection can add those that are in ``taken``.
    """

    taken: ClassVar[frozenset[str]] = frozenset()
    """Mount options that a connection may bear."""
    helper: ClassVar[str] = ""
    """The command that mounts."""
    types: ClassVar[frozenset[str]]
    """Its mounts' types in the mount table."""
    options: ClassVar[Sequence[Option]]
    always: ClassVar[str] = ""
    """Mount options that come first, so that the operator's can undo them."""

    def __init__(self, mount_options: str = "") -> None:
        if mount_options.startswith("-") or not mount_options.isprintable():
            raise Refused(
                f"{self.kind}_mount_options is not a list like ro,vers=4.1", hint="without -o"
            )
        self._mount_options = mount_options

    @classmethod
    def from_options(cls, host: Host, values: Values) -> Mounter[MountedFile]:
        return Mounter(
            host,
            cls(values[f"{cls.kind}_mount_options"]),
            Path(values[f"{cls.kind}_mount_point_base"]),
            deadline=60.0,
            given=given_mounts(f"{cls.kind}_mounted", values[f"{cls.kind}_mounted"]),
            places=given_mounts(f"{cls.kind}_mount_points", values[f"{cls.kind}_mount_points"]),
        )

    def clients(self, *, given: bool) -> Sequence[str]:
        return () if given or not self.helper else (self.helper,)

    def mounted_share(self, source: str) -> str:
        """The share that a source in the mount table names; '' if none."""
        try:
            return self.canonical(source)
        except Refused:
            return ""

    def from_url(self, url: str, format: Format | None) -> Mapping[str, Any]:
        """``KIND://HOST/SHARE/FILE`` to a connection; FILE is what follows the last slash."""
        share, _, name = url.removeprefix(f"{self.kind}://").rpartition("/")
        host, _, path = share.partition("/")
        if not url.startswith(f"{self.kind}://") or not path:
            raise Refused(f"that is not {self.kind}://HOST/SHARE/FILE")
        export = self.canonical(self.export(host, path))
        return typed(self.kind, {"export": export, "name": file_name(name)}, format)

    def url(self, c: MountedFile) -> str:
        """Of a file in a directory of its share it would be read as that of another share."""
        host, _, path = c.share.removeprefix("//").replace(":/", "/", 1).partition("/")
        return f"{self.kind}://{host}/{path}/{c.name}" if path and "/" not in c.name else ""

    def export(self, host: str, path: str) -> str:
        """A share by its host and its path, as a connection has it."""
        return f"{host}:/{path}"

    def parse(self, connection: Mapping[str, Any]) -> MountedFile:
        """Validate Cinder's connection. Raises Refused."""
        info = ConnectionInfo(self.kind, connection)
        return MountedFile(
            share=self.canonical(info.text("export", 4096)),
            name=info.file_name(),
            format=info.format(FORMATS),
            volume=info.volume_id(),
            mount_options=info.mount_options(self.taken),
        )

    def shares(self, c: MountedFile) -> frozenset[str]:
        match = re.fullmatch(rf"(?P<before>(?://)?){_HOST}(?P<rest>[:/].*)", c.share)
        if match is None:
            return frozenset({c.share})  # a path
        return frozenset({f"{match['before']}{server_name(match['host'])}{match['rest']}"})

    def claims(self, mount: Mount) -> bool:
        return mount.fstype in self.types

    def exports(self, mount: Mount) -> Sequence[str]:
        return tuple(filter(None, [self.mounted_share(mount.source)]))

    def is_mount_of(self, c: MountedFile, mount: Mount) -> bool:
        """Judge by the type and the source."""
        return self.claims(mount) and self.mounted_share(mount.source) == c.share

    def is_given_mount_of(self, c: MountedFile, mount: Mount) -> bool:
        """Judge by the type alone: the operator may have used another name of the server."""
        return self.claims(mount)

    def mount_command(self, c: MountedFile, at: Path) -> tuple[str, ...]:
        words = [self.always, self._mount_options, *self.wanted(c, at)]
        options = ",".join(word for word in words if word)
        return (self.helper, c.share, str(at), *(("-o", options) if options else ()))

    def wanted(self, c: MountedFile, at: Path) -> Sequence[str]:
        """The mount options that *c*'s connection wants."""
        return [f"{name}={value}" if value else name for name, value in c.mount_options.items()]


class Nfs(Mounted):
    """NFS, by mount.nfs(8), which finds out the version unless an option says it.

    Cinder's driver hands on the options of its shares file (``-o vers=4.1``).
    """

    kind: ClassVar[str] = "nfs"
    helper: ClassVar[str] = "mount.nfs"
    types: ClassVar[frozenset[str]] = frozenset({"nfs", "nfs4"})
    options: ClassVar[Sequence[Option]] = _options("nfs")
    taken: ClassVar[frozenset[str]] = _names(
        "vers nfsvers minorversion proto port mountport sec rsize wsize timeo retrans hard soft"
        " softerr nconnect actimeo noac lookupcache lock nolock ro rw noatime nodiratime"
    )

    @classmethod
    def canonical(cls, share: str) -> str:
        match = re.fullmatch(rf"{_HOST}:(?P<path>(?:/{_PART})*/?)", share)
        if match is None or not match["path"] or {".", ".."} & set(match["path"].split("/")):
            raise Refused(f"the {cls.kind} share is not HOST:/PATH", hint=_CHARACTERS)
        return f"{match['host'].lower()}:{match['path'].rstrip('/') or '/'}"


class GlusterFs(Mounted):
    """GlusterFS by its FUSE client, mount.glusterfs(8)."""

    kind: ClassVar[str] = "glusterfs"
    # After one failed flush of a file in the page cache, QEMU fails each that follows, also when
    # the server is long back: the guest would have to be stopped for it.
    caching: ClassVar[Caching] = Caching.DIRECT
    helper: ClassVar[str] = "mount.glusterfs"
    types: ClassVar[frozenset[str]] = frozenset({"fuse.glusterfs"})
    options: ClassVar[Sequence[Option]] = _options("glusterfs")
    taken: ClassVar[frozenset[str]] = _names(
        "backup-volfile-servers backupvolfile-server transport log-level"
    )

    @classmethod
    def canonical(cls, share: str) -> str:
        # Old clients show HOST:VOLUME.
        match = re.fullmatch(rf"{_HOST}:/?(?P<path>[A-Za-z0-9_-]+(?:/{_PART})*)/?", share)
        if match is None or {".", ".."} & set(match["path"].split("/")):
            raise Refused("the glusterfs share is not HOST:/VOLUME", hint=_VOLUME_CHARACTERS)
        return f"{match['host'].lower()}:/{match['path']}"


class Smbfs(Mounted):
    """SMB by mount.cifs(8). User and password go by a file that root alone can read."""

    kind: ClassVar[str] = "smbfs"
    helper: ClassVar[str] = "mount.cifs"
    types: ClassVar[frozenset[str]] = frozenset({"cifs", "smb3"})
    # Locks of SMB are mandatory: those that QEMU has on bytes 100 to 300 of an image, to keep
    # other programs off, would fail the guest's own writes to its first sector.
    always: ClassVar[str] = "nobrl"
    options: ClassVar[Sequence[Option]] = _options("smbfs", "cifs")
    secret: ClassVar[Mapping[str, str]] = {
        "username": "username",
        "user": "username",
        "password": "password",
        "pass": "password",
        "domain": "domain",
        "dom": "domain",
        "workgroup": "domain",
    }
    """Mount options that are credentials, and their names in the credentials file."""
    taken: ClassVar[frozenset[str]] = frozenset(secret) | _names(
        "vers sec seal port uid gid file_mode dir_mode noperm cache actimeo rsize wsize"
        " ro rw hard soft guest"
    )

    @classmethod
    def canonical(cls, share: str) -> str:
        # The names of server and share are case-insensitive.
        match = re.fullmatch(rf"//{_HOST}(?P<path>(?:/{_PART})+)/?", share.replace("\\", "/"))
        if match is None or {".", ".."} & set(match["path"].split("/")):
            raise Refused("the smbfs share is not //HOST/SHARE", hint=_CHARACTERS)
        share, slash, directory = match["path"][1:].partition("/")
        return f"//{match['host'].lower()}/{share.lower()}{slash}{directory}"

    def export(self, host: str, path: str) -> str:
        return f"//{host}/{path}"

    def parse(self, connection: Mapping[str, Any]) -> MountedFile:
        c = super().parse(connection)
        plain = {k: v for k, v in c.mount_options.items() if k not in self.secret}
        given = {self.secret[k]: v for k, v in c.mount_options.items() if k in self.secret}
        return MountedFile(
            share=c.share,
            name=c.name,
            format=c.format,
            volume=c.volume,
            mount_options=plain,
            credentials=Secret(given) if given else None,
        )

    def wanted(self, c: MountedFile, at: Path) -> Sequence[str]:
        named = [f"credentials={_credentials(at)}"] if c.credentials else []
        return [*super().wanted(c, at), *named]

    def mount(self, c: MountedFile, point: MountPoint) -> None:
        if c.credentials is None:
            super().mount(c, point)
            return
        _write_credentials(_credentials(point.at), c.credentials)
        try:
            super().mount(c, point)
        finally:
            self.tidy(point.at)

    def tidy(self, at: Path) -> None:
        with suppress(OSError):
            _credentials(at).unlink()


def _credentials(at: Path) -> Path:
    return at.with_name(f"{at.name}.credentials")


def _write_credentials(path: Path, credentials: Secret[Mapping[str, str]]) -> None:
    lines = "".join(f"{key}={value}\n" for key, value in credentials.reveal().items())
    try:
        with suppress(FileNotFoundError):
            path.unlink()  # a crash left it
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(file, "w") as stream:
            stream.write(lines)
    except OSError as e:
        raise Failed(f"the credentials file {path} cannot be written: {e.strerror}") from e


class Gpfs(Mounted):
    """GPFS (IBM Storage Scale), which its own daemon mounts: nothing is mounted by us.

    Cinder's driver tells the path of the image, not a share, and makes raw
    images alone. The path must lie beneath one of ``gpfs_mount_point_base``.
    """

    kind: ClassVar[str] = "gpfs"
    is_ours: ClassVar[bool] = False
    types: ClassVar[frozenset[str]] = frozenset({"gpfs"})
    options: ClassVar[Sequence[Option]] = (
        Option(
            "gpfs_mount_point_base",
            "",
            "Directories on GPFS in which volumes lie, comma-separated (Cinder's option).",
        ),
    )

    def __init__(self, bases: Sequence[Path]) -> None:
        super().__init__()
        self._bases = {str(base): base for base in bases}

    @classmethod
    def from_options(cls, host: Host, values: Values) -> Mounter[MountedFile]:
        bases = filter(None, (b.strip() for b in values["gpfs_mount_point_base"].split(",")))
        gpfs = cls([Path(absolute_path(base)) for base in bases])
        return Mounter(host, gpfs, Path("/"), given=gpfs._bases)

    @classmethod
    def canonical(cls, share: str) -> str:
        return absolute_path(share)

    def at(self, c: MountedFile, link: LinkName) -> MountedFile:
        """Whatever its base is, the image stays at its path."""
        path = PurePosixPath(c.share) / c.name
        if not path.is_relative_to(link):
            raise Refused(f"{path} is not beneath {link}, where it was")
        return replace(c, share=str(link), name=str(path.relative_to(link)), at=Path(link))

    def url(self, c: MountedFile) -> str:
        return f"{self.kind}://{c.share}/{c.name}"

    def from_url(self, url: str, format: Format | None) -> Mapping[str, Any]:
        """``gpfs:///PATH/FILE`` to a connection. Raises Refused."""
        path = absolute_path(url.removeprefix("gpfs://"))
        return typed(self.kind, {"name": PurePosixPath(path).name, "device_path": path}, format)

    def data(self, share: str, name: str) -> Mapping[str, str]:
        return {"name": PurePosixPath(name).name, "device_path": f"{share}/{name}"}

    def parse(self, connection: Mapping[str, Any]) -> MountedFile:
        info = ConnectionInfo(self.kind, connection)
        path = PurePosixPath(absolute_path(info.text("device_path", 4096)))
        info.refuse_options()
        for base in sorted(self._bases, key=len, reverse=True):
            if path.is_relative_to(base) and path != PurePosixPath(base):
                return MountedFile(
                    share=base,
                    name=file_name(str(path.relative_to(base))),
                    format=info.format(FORMATS) if info.has("format") else "raw",
                    volume=info.volume_id(),
                )
        raise Refused(
            "the connection's device_path is not on GPFS",
            hint="gpfs_mount_point_base names the directories that are",
        )
