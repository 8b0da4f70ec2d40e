"""Virtuozzo Storage: ``vstorage-mount`` (``pstorage-mount`` of old), a FUSE mount per cluster."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from moorline.backends import ploop
from moorline.backends.connection_info import ConnectionInfo, file_name, given_mounts, typed
from moorline.backends.filesystem import FileOnShare, FileSystem
from moorline.backends.mount_point import MountPoint
from moorline.backends.mounter import Mounter
from moorline.backends.ploop import Ploop
from moorline.backends.virtuozzo_settings import MountSettings, settings_of
from moorline.backends.virtuozzo_share import CLUSTER, read_share, tell_servers
from moorline.errors import Busy, Failed, Refused
from moorline.model import (
    BlockDevice,
    Caching,
    DiskSource,
    Format,
    ImageFile,
    Link,
    Linked,
    LinkName,
)
from moorline.ports import Host, Mount, Option, Values
from moorline.ports.inspection import Found, GuestDisk
from moorline.ports.recognising import Recognised, Setting
from moorline.secret import Secret

SCHEME = "vzstorage://"
FORMATS: tuple[Format, ...] = ("raw", "qcow2", "ploop", "luks")
CLIENTS = ("vstorage", "pstorage")
"""The names of the client, the newer first: commands, configuration, mounts."""

_APART = "-ploop"
"""The suffix of the names of mounts for ploop images."""
_SOURCE = re.compile(rf"[vp]storage://(?P<cluster>{CLUSTER})/?")


@dataclass(frozen=True, kw_only=True, slots=True)
class VirtuozzoFile(FileOnShare):
    """A disk image on a cluster. The share is the cluster's name, which is unique on a host."""

    servers: tuple[str, ...]
    """Metadata servers, ``host[:port]``; empty: the host finds them by itself."""
    password: Secret[str] | None


class Virtuozzo(FileSystem[VirtuozzoFile]):
    """Clusters of Virtuozzo Storage, which root mounts.

    *configuration*: the directory of the clients' configuration. *has_command*: whether
    there is a command.

    A cluster's password goes to ``vstorage auth-node`` on its standard input
    (docs.virtuozzo.com, Virtuozzo Storage 2.7), once for a node: the client
    keeps a digest. Exit codes other than 0 are not documented, so they are not
    told apart.
    """

    kind: ClassVar[str] = "vzstorage"
    options: ClassVar[Sequence[Option]] = (
        Option(
            "vzstorage_mount_point_base",
            "${moorline.state_dir}/mnt",
            "Directory of the mount points of Virtuozzo Storage clusters.",
        ),
        Option("vzstorage_mount_user", "stack", "Owner of what is mounted (a name)."),
        Option("vzstorage_mount_group", "qemu", "Group of what is mounted (a name)."),
        Option("vzstorage_mount_perms", "0770", "Permissions of what is mounted."),
        Option(
            "vzstorage_log_path",
            "/var/log/vstorage/%(cluster_name)s/nova.log.gz",
            "The client's log; %(cluster_name)s stands for the cluster.",
        ),
        Option(
            "vzstorage_cache_path",
            "",
            "File on an SSD for the client's cache; %(cluster_name)s stands for the cluster.",
        ),
        Option(
            "vzstorage_mount_opts",
            "",
            "More arguments for the mount command, such as ['-v', '-R', '500'];"
            " not -c, -l, -C, -u, -g, -m.",
        ),
        Option("vzstorage_disk_cache", "writeback", "writeback, none or default."),
        Option(
            "vzstorage_mounted",
            "",
            "Clusters that the operator mounts: CLUSTER=/path, comma-separated.",
        ),
        Option(
            "vzstorage_mount_points",
            "",
            "Where clusters are mounted instead, as vzstorage_mounted: for mounts that Nova made.",
        ),
    )

    def __init__(
        self,
        settings: MountSettings | None = None,
        *,
        cache: Caching = Caching.WRITEBACK,
        configuration: Path = Path("/etc"),
        has_command: Callable[[str], object] = shutil.which,
    ) -> None:
        self._settings = settings or MountSettings()
        self._cache = cache
        self._configuration = configuration
        self._has_command = has_command

    @classmethod
    def from_options(cls, host: Host, values: Values) -> FileOrPloop:
        virtuozzo = cls(settings_of(values), cache=_cache(values["vzstorage_disk_cache"]))
        return virtuozzo.on(
            host,
            mount_point_base=Path(values["vzstorage_mount_point_base"]),
            given=given_mounts("vzstorage_mounted", values["vzstorage_mounted"]),
            places=given_mounts("vzstorage_mount_points", values["vzstorage_mount_points"]),
        )

    def on(
        self,
        host: Host,
        *,
        mount_point_base: Path,
        given: Mapping[str, Path] | None = None,
        places: Mapping[str, Path] | None = None,
        ploop_names: Path = ploop.NAMES,
        deadline: float = 30.0,
    ) -> FileOrPloop:
        """A back end of it. *deadline*: seconds that each command has, the client's and ploop's.

        *given*: clusters that the operator mounts, by their names. *places*: where clusters
        are mounted instead of a place of our choice.
        """

        def mounter(suffix: str) -> Mounter[VirtuozzoFile]:
            named = {cluster: Path(f"{at}{suffix}") for cluster, at in (places or {}).items()}
            return Mounter(
                *(host, self, mount_point_base),
                deadline=deadline,
                given=given,
                places=named,
                suffix=suffix,
            )

        images = Ploop(
            host,
            mounter(_APART),
            caching=self._cache,
            names=ploop_names,
            has_command=self._has_command,
            deadline=deadline,
        )
        return FileOrPloop(mounter(""), images)

    def clients(self, *, given: bool) -> Sequence[str]:
        return tuple(f"{client}-mount" for client in CLIENTS)

    def from_url(self, url: str, format: Format | None) -> Mapping[str, Any]:
        """``vzstorage://[MDS[,MDS…]:/]CLUSTER/FILE`` to a connection. Raises Refused.

        It has no place for a password, as other users can see what is typed.
        """
        match = re.fullmatch(r"vzstorage://((?:[^/]+:/)?[^/:]+)/(.+)", url)
        if match is None:
            raise Refused(
                "that does not name a file on Virtuozzo Storage",
                hint="vzstorage://[MDS[,MDS]:/]CLUSTER/FILE; a password only by --connection",
            )
        export, name = match.groups()
        read_share(export)
        return typed(self.kind, {"export": export, "name": file_name(name)}, format)

    def url(self, c: VirtuozzoFile) -> str:
        servers = f"{','.join(c.servers)}:/" if c.servers else ""
        return f"{self.kind}://{servers}{c.share}/{c.name}"

    def parse(self, connection: Mapping[str, Any]) -> VirtuozzoFile:
        """Validate Cinder's connection. Raises Refused, and quotes nothing of the share."""
        info = ConnectionInfo(self.kind, connection)
        servers, cluster, password = read_share(info.text("export", 8192))
        info.refuse_options()
        format, name = info.format(FORMATS), info.file_name()
        if format == "ploop" and re.search(r"\s", name):
            raise Refused("the name of a ploop image must not have spaces in it")
        return VirtuozzoFile(
            share=cluster,
            name=name,
            format=format,
            volume=info.volume_id(),
            servers=servers,
            password=password,
        )

    def claims(self, mount: Mount) -> bool:
        return mount.fstype in {f"fuse.{client}" for client in CLIENTS}

    def exports(self, mount: Mount) -> Sequence[str]:
        source = _SOURCE.fullmatch(mount.source)
        return [source["cluster"]] if source else []

    def is_mount_of(self, c: VirtuozzoFile, mount: Mount) -> bool:
        return self.claims(mount) and c.share in self.exports(mount)

    def source(self, c: VirtuozzoFile, path: Path) -> ImageFile:
        # libvirt does not know these file systems as shared: after a migration
        # the host that is left would take the image from its running guest.
        return ImageFile(path, c.format, self._cache, relabel=False)

    def mount_command(self, c: VirtuozzoFile, at: Path) -> tuple[str, ...]:
        prefix = "ploop-" if c.format == "ploop" else ""
        arguments = self._settings.arguments(c.share, prefix)
        return (f"{self._client()}-mount", "-c", c.share, str(at), *arguments)

    def mount(self, c: VirtuozzoFile, point: MountPoint) -> None:
        client = self._client()
        clusters = self._configuration / client / "clusters" / c.share
        tell_servers(clusters / "bs.list", c.servers, point.at.name)
        known = (clusters / "auth_digest.key").exists()
        if not known:
            self._authenticate(client, c, point)
        try:
            super().mount(c, point)
        except Busy:
            raise
        except Failed as e:
            if missing := self._settings.missing():
                raise Failed(f"{e.message}; {missing}") from e
            # The node may have been authorised with a password that was changed since.
            if not known or c.password is None or point.mounted() is not None:
                raise
            self._authenticate(client, c, point)
            super().mount(c, point)

    def _authenticate(self, client: str, c: VirtuozzoFile, point: MountPoint) -> None:
        if c.password is not None:
            line = Secret(f"{c.password.reveal()}\n")
            point.run((client, "-c", c.share, "auth-node", "-P"), stdin=line)

    def _client(self) -> str:
        """The client that is installed."""
        for client in CLIENTS:
            if self._has_command(f"{client}-mount"):
                return client
        raise Failed(
            "there is no command vstorage-mount, nor pstorage-mount",
            hint="is Virtuozzo Storage's client installed?",
        )


class FileOrPloop:
    """The back end of clusters: an image's format decides which of two kinds of link it has."""

    kind: ClassVar[str] = Virtuozzo.kind
    yields: ClassVar[frozenset[type]] = frozenset({ImageFile, BlockDevice})

    def __init__(self, files: Mounter[VirtuozzoFile], images: Ploop[VirtuozzoFile]) -> None:
        self._files = files
        self._images = images
        self.from_url = files.from_url
        self.parse = files.parse
        self.url = files.url
        self.shares = files.shares
        self.claims = files.claims
        self.places = files.places
        self.diagnose = files.diagnose

    def at(self, c: VirtuozzoFile, link: LinkName) -> VirtuozzoFile:
        return self._of(c).at(c, link)

    def recognise(
        self,
        disk: GuestDisk,
        mount: Mount | None,
        *,
        ours: bool = False,
        known: Sequence[Any] = (),
    ) -> Recognised | None:
        """Files alone: the device of a ploop image lies on no mount."""
        return self._files.recognise(disk, mount, ours=ours, known=known)

    def setting(
        self, c: VirtuozzoFile, disk: GuestDisk, mount: Mount, *, ours: bool
    ) -> Setting | None:
        return self._files.setting(c, disk, mount, ours=ours) if c.format != "ploop" else None

    def link_name(self, c: VirtuozzoFile) -> LinkName:
        """The mount point; of a ploop image, the name of its device."""
        return self._of(c).link_name(c)

    def inspect(self, c: VirtuozzoFile) -> Link:
        return self._of(c).inspect(c)

    def verify(self, c: VirtuozzoFile) -> DiskSource:
        return self._of(c).verify(c)

    def ready(self, c: VirtuozzoFile) -> Linked | None:
        """See :class:`moorline.ports.Readying`. A ploop image has more to look at."""
        return self._files.ready(c) if c.format != "ploop" else None

    def mounted(self, c: VirtuozzoFile) -> bool:
        """See :class:`moorline.ports.Mounting`. Of a ploop image, its device is looked at."""
        return c.format == "ploop" or self._files.mounted(c)

    def connect(self, c: VirtuozzoFile) -> None:
        self._of(c).connect(c)

    def disconnect(self, c: VirtuozzoFile) -> None:
        self._of(c).disconnect(c)

    def links(self) -> Sequence[Found]:
        """Mounts and mount points, and the devices of ploop images."""
        return [*self._files.links(), *self._images.links()]

    def clear(self, link: LinkName) -> None:
        """Also the device of a ploop image, and with the last one their mount."""
        if not self._images.clear(link):
            self._files.clear(link)

    def _of(self, c: VirtuozzoFile) -> Mounter[VirtuozzoFile] | Ploop[VirtuozzoFile]:
        return self._images if c.format == "ploop" else self._files


def _cache(text: str) -> Caching:
    known = {
        "writeback": Caching.WRITEBACK,
        "none": Caching.DIRECT,
        "default": Caching.DEFAULT,
    }
    if text not in known:
        raise Refused(f"vzstorage_disk_cache: {text!r} is not one of {', '.join(known)}")
    return known[text]
