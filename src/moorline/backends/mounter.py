"""The back end of any file system that holds disk images: mounts shares and looks at them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Any, Generic

from moorline.backends import bare_directory, image_check
from moorline.backends.connection_info import given_mounts
from moorline.backends.filesystem import F, FileSystem
from moorline.backends.mount_point import Ill, MountPoint
from moorline.errors import Failed, NotOurs, Refused, Uncertain
from moorline.model import (
    Broken,
    DiskSource,
    Foreign,
    ImageFile,
    Link,
    Linked,
    LinkName,
    Unknown,
    Unlinked,
)
from moorline.ports import Host, IsIts, Mount
from moorline.ports.host import Remembering
from moorline.ports.inspection import Finding, Found, GuestDisk
from moorline.ports.recognising import Recognised, Setting


class Mounter(Generic[F]):
    """See :class:`moorline.ports.StorageBackend`. *file_system*: the facts of its kind.

    *base*: the directory of the mount points, made if it is not there. *deadline*: seconds
    that a mount or umount command has. *user*: who mounts ('' is us). *given*: where the
    operator mounts shares; those are used as they are, and neither mounted nor unmounted.
    *places*: where shares are mounted instead of beneath *base*: there Nova did it, and
    guests name it. *suffix*: of the names of mount points, where a share may have another
    mount for another purpose.
    """

    yields: frozenset[type] = frozenset({ImageFile})

    def __init__(
        self,
        host: Host,
        file_system: FileSystem[F],
        base: Path,
        *,
        deadline: float = 30.0,
        user: str = "",
        given: Mapping[str, Path] | None = None,
        places: Mapping[str, Path] | None = None,
        suffix: str = "",
    ) -> None:
        self.kind = file_system.kind
        self.from_url = file_system.from_url
        self.parse = file_system.parse
        self.url = file_system.url
        self.shares = file_system.shares
        self.at = file_system.at
        self.claims = file_system.claims
        self.writes_through = file_system.writes_through
        if not base.is_absolute():
            raise Refused(f"the directory of the {self.kind} mount points, {base}, is not absolute")
        self.file_system = file_system
        self._host = host
        self._remembering = host if isinstance(host, Remembering) else None
        # The mount table tells real paths.
        self._base = Path(os.path.realpath(base))
        self._deadline = deadline
        self._user = user
        spell = file_system.canonical
        self._given = {spell(share): at for share, at in (given or {}).items()}
        self._places = {spell(share): at for share, at in (places or {}).items()}
        self._suffix = suffix

    # --- StorageBackend ---

    def link_name(self, c: F) -> LinkName:
        """The mount point."""
        return LinkName(str(self.mount_point(c)))

    def inspect(self, c: F) -> Link:
        """Tell what is at the mount point. Blocks for the look's deadline at most."""
        if self._remembering is None:
            at, given, ill = self._looked(c)
        else:  # all volumes of a share are on one mount
            what = (self, c.share, c.at)
            at, given, ill = self._remembering.once(what, lambda: self._looked(c))
        return ill or Linked(self.file_system.source(c, _file_in(at, c.name)), given=given)

    def _looked(self, c: F) -> tuple[Path, bool, Ill | Unlinked | None]:
        """Where *c*'s share is mounted, whether that is the operator's to do, what is wrong."""
        point, given = self._point(c), self.is_given(c)
        return point.at, given, point.look_within() if given else point.look()

    def verify(self, c: F) -> DiskSource:
        """See :meth:`moorline.ports.StorageBackend.verify`. Blocks for three looks at most."""
        if ready := self.ready(c):
            return ready.source
        self._demand_link(c, self.inspect(c))
        at = self.mount_point(c)
        return image_check.checked(self._host, at, self.file_system.source(c, at / c.name))

    def ready(self, c: F) -> Linked | None:
        """See :meth:`moorline.ports.Readying`. One question for the mount and the image."""
        point, given = self._point(c), self.is_given(c)
        source = self.file_system.source(c, point.at / c.name)
        mount = point.its(given=given)
        if mount is None:
            return None
        try:
            image = self._host.image(point.at, c.name, source.format)
        except (Refused, Uncertain, OSError):
            return None  # what is wrong is asked for one by one
        if point.judge(mount, image.root) is not None:
            return None
        return Linked(image_check.as_checked(source, image), given=given, verified=True)

    def mounted(self, c: F) -> bool:
        """See :meth:`moorline.ports.Mounting.mounted`."""
        return self._point(c).its(given=self.is_given(c)) is not None

    def connect(self, c: F) -> None:
        """Mount the share, and check that it is the right one. Mounted already is success."""
        link = self.inspect(c)
        if not isinstance(link, Unlinked) or self.is_given(c):
            self._demand_link(c, link)
            return
        point = self._point(c)
        point.mount(partial(self._mount, c, point))

    def disconnect(self, c: F) -> None:
        """Unmount one layer (a crash may have left several). Not mounted is success.

        It is lazy only if the client was seen gone, and with it all that was open there. The
        mount point is removed, too, so that nothing can be written where nothing is mounted.
        What the operator mounted stays.
        """
        if not self.is_given(c):
            self._point(c).take_away()
        elif isinstance(link := self.inspect(c), Broken):
            raise Failed(link.reason, hint="the operator mounted it, and must renew it")

    # --- Discovering, Diagnosing ---

    def places(self) -> Sequence[Path]:
        """The directory of the mount points, if anything is mounted by us."""
        return [self._base] if self.file_system.is_ours else []

    def links(self) -> Sequence[Found]:
        """Mounts of this kind at our mount points, and mount points without a mount.

        The latter may be of another kind: an empty directory does not tell.
        """
        mounted = {Path(m.target).name: m for m in self._host.mounts() if self._is_ours(m.target)}
        try:
            names = os.listdir(self._base)  # noqa: PTH208 - no stat: one of them may hang
        except OSError:
            names = []
        bare = [n for n in names if n not in mounted and self._is_ours(str(self._base / n))]
        found = [
            Found(LinkName(mount.target), self._anyones(Path(mount.target)).look_at(mount))
            for mount in mounted.values()
            if self.claims(mount)
        ]
        return found + [self._bare(self._base / name) for name in bare]

    def clear(self, link: LinkName) -> None:
        """Unmount one layer and remove the mount point; as :meth:`disconnect`."""
        if not self._is_ours(link):
            raise Refused(f"{link} is no mount point of ours")
        self._anyones(Path(link)).take_away()

    def diagnose(self) -> Sequence[Finding]:
        """Whether the client is installed."""
        clients = self.file_system.clients(given=bool(self._given))
        if not clients or any(map(shutil.which, clients)):
            return []
        return [
            Finding(
                "missing-client",
                self.kind,
                f"there is no command {' or '.join(clients)}",
                f"{self.kind} volumes are wanted here, and cannot be connected without it",
                f"command -v {clients[0]}",
            )
        ]

    # --- Recognising, Locating ---

    def recognise(
        self,
        disk: GuestDisk,
        mount: Mount | None,
        *,
        ours: bool = False,
        known: Sequence[Any] = (),
    ) -> Recognised | None:
        """See :class:`moorline.ports.recognising.Recognising`."""
        if mount is None or not self.claims(mount):
            return None
        for connection in self._connections(disk, mount, known):
            try:
                c = self.parse(connection)
            except Refused:
                if self.file_system.is_ours:
                    raise
                return Recognised(connection, self._base_setting(mount))
            if f"{self.mount_point(c)}/{c.name}" == disk.path:
                return Recognised(connection)
        first = next(self._connections(disk, mount, known))
        return Recognised(first, self.setting(self.parse(first), disk, mount, ours=ours))

    def setting(self, c: F, disk: GuestDisk, mount: Mount, *, ours: bool) -> Setting | None:
        """See :class:`moorline.ports.recognising.Locating`."""
        at = self.mount_point(c)
        if f"{at}/{c.name}" == disk.path or f"{mount.target}/{c.name}" != disk.path:
            return None
        if not self.claims(mount):
            return None
        _refuse_moorlines(mount)
        table, option = (self._places, "mount_points") if ours else (self._given, "mounted")
        if c.share in self._given or c.share in self._places:
            raise Refused(
                f"{c.share} is configured at {at}, and {disk.path} is on another mount of it"
            )
        entries = [f"{share}={place}" for share, place in {**table, c.share: mount.target}.items()]
        setting = Setting(f"{self.kind}_{option}", tuple(entries))
        if not self.file_system.is_mount_of(c, mount):
            raise Refused(
                f"{mount.target} is {mount.source}, and the connection names {c.share}",
                hint=f"if both are one share: {setting.option} = {entries[-1]}",
            )
        if given_mounts(setting.option, setting.value) != {
            **table,
            c.share: Path(mount.target),
        }:
            raise Refused(f"no option can name the mount point {mount.target!r}")
        return setting

    def _connections(
        self, disk: GuestDisk, mount: Mount, known: Sequence[F]
    ) -> Iterator[Mapping[str, Any]]:
        """Connections that may be of a disk on *mount*, the likeliest first; at least one.

        Raises Refused: the mount does not tell its share.
        """
        path = PurePosixPath(disk.path)
        named = [*self._given.items(), *self._places.items()]
        named += [(c.share, self.mount_point(c)) for c in {c.share: c for c in known}.values()]
        for share, at in sorted(named, key=lambda each: -len(str(each[1]))):
            if at.is_relative_to(mount.target) and path.is_relative_to(at):
                yield self._connection(share, str(path.relative_to(at)), disk)
        if not self.file_system.is_ours:
            yield self._connection(mount.target, str(path.relative_to(mount.target)), disk)
            return
        if mount.root != "/":
            raise Refused(
                f"{mount.target} is a directory of a share ({mount.root}) and not all of it",
                hint="give the disk's connection: --connections",
            )
        exports = self.file_system.exports(mount)
        if not exports:
            raise Refused(
                f"the mount table does not tell which share is mounted at {mount.target}",
                hint="give the disk's connection: --connections",
            )
        for export in exports:
            yield self._connection(export, str(path.relative_to(mount.target)), disk)

    def _connection(self, share: str, name: str, disk: GuestDisk) -> Mapping[str, Any]:
        data = {**self.file_system.data(share, name), "format": disk.format}
        return {"driver_volume_type": self.kind, "data": data}

    def _base_setting(self, mount: Mount) -> Setting:
        """Of a file system that is named by its directories."""
        bases = dict.fromkeys([*map(str, self._given.values()), mount.target])
        return Setting(f"{self.kind}_mount_point_base", tuple(bases))

    # --- how ---

    def mount_point(self, c: F) -> Path:
        """Where *c*'s share is mounted: by its name, or where earlier options put it."""
        if c.at:
            return c.at
        named = self._given.get(c.share) or self._places.get(c.share)
        return named or self._base / self.name(c)

    def name(self, c: F) -> str:
        """The name of a mount point that we make for *c*'s share."""
        return f"{bare_directory.name(self.kind, c.share)}{self._suffix}"

    def is_given(self, c: F) -> bool:
        """Whether *c*'s share is mounted by the operator.

        Of a mount point from earlier options no option tells that, but its name tells whether
        we made it.
        """
        return not self._is_name(c.at.name) if c.at else c.share in self._given

    def _is_ours(self, target: str) -> bool:
        at = Path(target)
        ours = at.parent == self._base and self._is_name(at.name)
        return ours or at in self._places.values()

    def _is_name(self, name: str) -> bool:
        suffix = self._suffix
        return name.endswith(suffix) and bare_directory.is_name(name.removesuffix(suffix))

    def _point(self, c: F) -> MountPoint:
        files = self.file_system
        is_its = files.is_given_mount_of if self.is_given(c) else files.is_mount_of
        return self._point_at(self.mount_point(c), partial(is_its, c))

    def _anyones(self, at: Path) -> MountPoint:
        """A mount point of an unknown share."""
        return self._point_at(at, self.claims)

    def _point_at(self, at: Path, is_its: IsIts) -> MountPoint:
        files = self.file_system
        return MountPoint(
            self._host, at, is_its, files.defect, files.tidy, self._deadline, self._user
        )

    def _mount(self, c: F, point: MountPoint) -> None:
        self.file_system.mount(c, point)
        # The exit code of a mount command proves nothing.
        self._demand_link(c, self.inspect(c))

    def _bare(self, at: Path) -> Found:
        """A mount point at which nothing is mounted, of whatever share."""
        ill = self._anyones(at).look_beneath()
        others = self._host.elsewhere(at) if isinstance(ill, Unlinked) else ()
        return Found(LinkName(str(at)), ill, tuple(others))

    def _demand_link(self, c: F, link: Link) -> None:
        match link:
            case Foreign(reason):
                raise NotOurs(reason)
            case Unknown(reason):
                raise Uncertain(reason)
            case Broken(reason):
                raise Failed(reason)
            case Unlinked():
                raise Failed(f"nothing is mounted at {self.mount_point(c)}")


def _refuse_moorlines(mount: Mount) -> None:
    """Refuse to name a mount of Moorline's own as somebody else's."""
    if bare_directory.is_name(Path(mount.target).name):
        raise Refused(
            f"{mount.target} was mounted by Moorline: for another state directory, by other"
            " options, or for another spelling of its share",
            hint="give the disk's connection (--connections), or release it there first",
        )


@lru_cache(maxsize=1 << 14)
def _file_in(directory: Path, name: str) -> Path:
    """Made once for each: a list of a thousand volumes asks for the path of each, and its text."""
    return directory / name
