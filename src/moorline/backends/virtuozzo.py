"""Virtuozzo Storage: ``vstorage-mount`` (``pstorage-mount`` of old), a FUSE mount per cluster."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from moorline.backends import mountpoint
from moorline.backends.connection_info import ConnectionInfo, file_name, given_mounts, typed
from moorline.backends.filesystem import FileOnShare, MountedFileSystem
from moorline.backends.hold import Hold
from moorline.backends.mounting import topmost
from moorline.backends.ploop import Ploop
from moorline.backends.virtuozzo_settings import MountSettings, settings_of
from moorline.backends.virtuozzo_share import CLUSTER, read_share, tell_servers
from moorline.errors import Busy, Failed, MoorlineError, Refused
from moorline.model import BlockDevice, Caching, DiskSource, Format, ImageFile, Link, LinkName
from moorline.ports import Host, Mount, Option, Values
from moorline.ports.inspection import Found
from moorline.secret import Secret

SCHEME = "vzstorage://"
FORMATS: tuple[Format, ...] = ("raw", "qcow2", "ploop")
CLIENTS = ("vstorage", "pstorage")
"""The names of the client, the newer first: commands, configuration, mounts."""

_APART = "-ploop"
"""What the name of a mount for ploop images ends in."""
_SOURCE = re.compile(rf"[vp]storage://(?P<cluster>{CLUSTER})/?")


@dataclass(frozen=True, kw_only=True, slots=True)
class VirtuozzoFile(FileOnShare):
    """A disk image on a cluster. The share is the cluster's name: a host knows it by that."""

    servers: tuple[str, ...]
    """Metadata servers, ``host[:port]``; empty: the host finds them by itself."""
    password: Secret[str] | None


class Virtuozzo(MountedFileSystem[VirtuozzoFile]):
    """Mounts clusters of Virtuozzo Storage, as root.

    *given*: clusters that the operator mounts, by their names. *places*: where
    clusters are mounted instead of a place of our choice. *configuration*: the
    directory of the clients' configuration. *has_command*: whether there is a command.
    *deadline*: seconds that each of the client's commands has.

    A cluster's password goes to ``vstorage auth-node`` on its standard input
    (docs.virtuozzo.com, Virtuozzo Storage 2.7), once for a node: the client
    keeps a digest. Exit codes other than 0 are not documented, so they are not
    told apart.
    """

    kind: ClassVar[str] = "vzstorage"
    yields: ClassVar[frozenset[type]] = frozenset({ImageFile, BlockDevice})
    clients: Sequence[str] = tuple(f"{client}-mount" for client in CLIENTS)
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
        host: Host,
        *,
        mount_point_base: Path,
        settings: MountSettings | None = None,
        cache: Caching = Caching.WRITEBACK,
        given: Mapping[str, Path] | None = None,
        places: Mapping[str, Path] | None = None,
        configuration: Path = Path("/etc"),
        has_command: Callable[[str], object] = shutil.which,
        ploop: Ploop | None = None,
        deadline: float = 30.0,
    ) -> None:
        super().__init__(host, mount_point_base, deadline=deadline, given=given, places=places)
        self._settings = settings or MountSettings()
        self._cache = cache
        self._configuration = configuration
        self._has_command = has_command
        self._ploop = ploop or Ploop(host, has_command=has_command, deadline=deadline)
        self._ploop_lanes: dict[Path, threading.Lock] = {}

    @classmethod
    def from_options(cls, host: Host, values: Values) -> Virtuozzo:
        return cls(
            host,
            mount_point_base=Path(values["vzstorage_mount_point_base"]),
            settings=settings_of(values),
            cache=_cache(values["vzstorage_disk_cache"]),
            given=given_mounts("vzstorage_mounted", values["vzstorage_mounted"]),
            places=given_mounts("vzstorage_mount_points", values["vzstorage_mount_points"]),
        )

    def from_url(self, url: str, format: Format | None) -> Mapping[str, Any]:
        """``vzstorage://[MDS[,MDS…]:/]CLUSTER/FILE`` to a connection. Raises Refused.

        There is no place for a password: what is typed can be seen by others.
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

    # --- ploop images: a device on a mount that only such devices use ---

    def at(self, c: VirtuozzoFile, link: LinkName) -> VirtuozzoFile:
        if c.format == "ploop":  # the name of a device, which no option has changed
            raise Refused(f"{link} is no name of the device of {c.name} on {c.share}")
        return super().at(c, link)

    def mount_point(self, c: VirtuozzoFile) -> Path:
        at = super().mount_point(c)
        if c.format != "ploop":
            return at
        # Apart, so that the kernel's list of devices tells whether it is used. It is no
        # link (those are the devices), so its name is none that links() takes for one.
        apart = at if super().is_given(c) else at.with_name(f"{at.name}{_APART}")
        return self._mounted_apart(c) or apart

    def is_given(self, c: VirtuozzoFile) -> bool:
        return super().is_given(c) and not (c.format == "ploop" and self._mounted_apart(c))

    def link_name(self, c: VirtuozzoFile) -> LinkName:
        """The mount point; of a ploop image, the name of its device."""
        return LinkName(str(self._device(c))) if c.format == "ploop" else super().link_name(c)

    def inspect(self, c: VirtuozzoFile) -> Link:
        link = super().inspect(c)
        if c.format != "ploop":
            return link
        mount = None if self.is_given(c) else self.mount_point(c)
        return self._ploop.link(self._device(c), self._directory(c), link, self._cache, mount)

    def verify(self, c: VirtuozzoFile) -> DiskSource:
        """As of any file; a guest is given the device of a ploop image, whose files are checked."""
        source = super().verify(c)
        ploop = c.format == "ploop"
        return self._ploop.source(self._device(c), self._cache) if ploop else source

    def connect(self, c: VirtuozzoFile) -> None:
        if c.format != "ploop":
            super().connect(c)
            return
        self._ploop.demand(self._device(c))
        with self._lane(self.mount_point(c)):
            super().connect(c)
            # What the kernel opens is looked at before it does.
            self.verify(c)
            self._ploop.connect(self._device(c), self._directory(c))

    def disconnect(self, c: VirtuozzoFile) -> None:
        if c.format != "ploop":
            super().disconnect(c)
            return
        with self._lane(self.mount_point(c)):
            self._ploop.disconnect(self._device(c), self._directory(c))
            if not self._ploop.used(self.mount_point(c)):
                super().disconnect(c)

    def links(self) -> Sequence[Found]:
        """Mounts and mount points, and the devices of ploop images."""
        found = [*super().links()]
        with suppress(MoorlineError):  # what cannot be told is left alone
            found += [Found(LinkName(str(name)), None) for name in self._ploop.found(self._base)]
        return found

    def clear(self, link: LinkName) -> None:
        """Also the device of a ploop image, and with the last one their mount."""
        directory = self._ploop.found(self._base).get(Path(link))
        if directory is None:
            super().clear(link)
            return
        ours = directory.is_relative_to(self._base)  # else the operator mounted it
        at = self._base / directory.relative_to(self._base).parts[0] if ours else directory
        with self._lane(at):
            self._ploop.disconnect(Path(link), directory)
            if ours and not self._ploop.used(at):
                self._take_away(Hold(self._host, at, self.claims))

    def _mounted_apart(self, c: VirtuozzoFile) -> Path | None:
        """Where *c*'s cluster is mounted for ploop images, if it is.

        Their links do not tell by which options that was: the mount table does.
        """
        name = f"{mountpoint.name(self.kind, c.share)}{_APART}"
        targets = (Path(m.target) for m in self._host.mounts() if self.is_mount_of(c, m))
        return next((at for at in targets if at.name == name), None)

    def _lane(self, mount_point: Path) -> threading.Lock:
        """Volumes have links of their own here, but one mount."""
        return self._ploop_lanes.setdefault(mount_point, threading.Lock())

    def _device(self, c: VirtuozzoFile) -> Path:
        return self._ploop.name(mountpoint.name(self.kind, f"{c.share}/{c.name}"))

    def _directory(self, c: VirtuozzoFile) -> Path:
        return self.mount_point(c) / c.name

    # --- the facts ---

    def claims(self, mount: Mount) -> bool:
        return mount.fstype in {f"fuse.{client}" for client in CLIENTS}

    def is_mount_of(self, c: VirtuozzoFile, mount: Mount) -> bool:
        source = _SOURCE.fullmatch(mount.source)
        return self.claims(mount) and source is not None and source["cluster"] == c.share

    def source(self, c: VirtuozzoFile, path: Path) -> ImageFile:
        # libvirt does not know these file systems as shared: after a migration
        # the host that is left would take the image from its running guest.
        return ImageFile(path, c.format, self._cache, relabel=False)

    def mount_command(self, c: VirtuozzoFile, at: Path) -> tuple[str, ...]:
        prefix = "ploop-" if c.format == "ploop" else ""
        arguments = self._settings.arguments(c.share, prefix)
        return (f"{self._client()}-mount", "-c", c.share, str(at), *arguments)

    def mount(self, c: VirtuozzoFile, at: Path) -> None:
        client = self._client()
        clusters = self._configuration / client / "clusters" / c.share
        tell_servers(clusters / "bs.list", c.servers, at.name)
        known = (clusters / "auth_digest.key").exists()
        if not known:
            self._authenticate(client, c, at)
        try:
            super().mount(c, at)
        except Busy:
            raise
        except Failed as e:
            if missing := self._settings.missing():
                raise Failed(f"{e.message}; {missing}") from e
            # The node may be known by a password that has been changed since.
            if not known or c.password is None or topmost(self._host, at) is not None:
                raise
            self._authenticate(client, c, at)
            super().mount(c, at)

    def _authenticate(self, client: str, c: VirtuozzoFile, at: Path) -> None:
        if c.password is not None:
            line = Secret(f"{c.password.reveal()}\n")
            self.run(at, (client, "-c", c.share, "auth-node", "-P"), stdin=line)

    def _client(self) -> str:
        """The client that is installed."""
        for client in CLIENTS:
            if self._has_command(f"{client}-mount"):
                return client
        raise Failed(
            "there is no command vstorage-mount, nor pstorage-mount",
            hint="is Virtuozzo Storage's client installed?",
        )


def _cache(text: str) -> Caching:
    known = {
        "writeback": Caching.WRITEBACK,
        "none": Caching.DIRECT,
        "default": Caching.DEFAULT,
    }
    if text not in known:
        raise Refused(f"vzstorage_disk_cache: {text!r} is not one of {', '.join(known)}")
    return known[text]
