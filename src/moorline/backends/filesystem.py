"""The recipe for file systems that hold disk images and that we mount ourselves.

A file system adds its facts: how its connections read, what its mounts look
like in the mount table, the command that mounts, what a healthy root is.
"""

from __future__ import annotations

import os
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from moorline.backends import images, mountpoint
from moorline.backends.hold import Hold, hold_file
from moorline.backends.mounting import broken, covering, said, topmost, unmount
from moorline.errors import Failed, MoorlineError, NotOurs, Refused, Uncertain
from moorline.model import (
    Broken,
    Caching,
    Client,
    DiskSource,
    Foreign,
    Format,
    ImageFile,
    Link,
    Linked,
    LinkName,
    Unknown,
    Unlinked,
    VolumeId,
)
from moorline.ports import Command, Host, Mount, Root
from moorline.ports.inspection import Finding, Found
from moorline.secret import Secret

_DAEMON_EXIT_SECONDS = 2.0
"""Seconds that a daemon has to end after its mount is gone, or a command that was killed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileOnShare:
    """A disk image on a share. File systems add what mounting needs."""

    share: str
    """The share, spelled the same however the connection spells it. No secret."""
    name: str
    format: Format
    volume: VolumeId | None = None
    at: Path | None = None
    """Where the share was mounted by other options than now's; None: where those say."""


F = TypeVar("F", bound=FileOnShare)
L = TypeVar("L", bound=Link)


class MountedFileSystem(ABC, Generic[F]):
    """Most of a :class:`moorline.ports.StorageBackend`: all but parsing and the facts.

    *base*: the directory of the mount points, made if it is not there.
    *mount_user*: who mounts ('' is us). *deadline*: seconds that a mount or
    umount command has. *given*: where the operator mounts shares; those are
    used as they are, and neither mounted nor unmounted. *places*: where shares
    are mounted instead of beneath *base*: there Nova did it, and guests name it.
    """

    kind: ClassVar[str]
    yields: ClassVar[frozenset[type]] = frozenset({ImageFile})
    caching: ClassVar[Caching] = Caching.DEFAULT
    clients: Sequence[str] = ()
    """Commands that mount it, of which one is needed."""

    def __init__(
        self,
        host: Host,
        base: Path,
        *,
        mount_user: str = "",
        deadline: float,
        given: Mapping[str, Path] | None = None,
        places: Mapping[str, Path] | None = None,
    ) -> None:
        if not base.is_absolute():
            raise Refused(f"the directory of the {self.kind} mount points, {base}, is not absolute")
        self._host = host
        # The mount table tells real paths.
        self._base = Path(os.path.realpath(base))
        self._mount_user = mount_user
        self._deadline = deadline
        self._given = dict(given or {})
        self._places = dict(places or {})

    # --- the facts of a file system ---

    @abstractmethod
    def claims(self, mount: Mount) -> bool:
        """Whether a line of the mount table is a mount of this kind of file system."""

    @abstractmethod
    def is_mount_of(self, c: F, mount: Mount) -> bool:
        """Whether a line of the mount table may be the mount of *c*'s share."""

    @abstractmethod
    def mount_command(self, c: F, at: Path) -> tuple[str, ...]:
        """The command that mounts *c*'s share at *at*."""

    def ailment(self, root: Root) -> str:
        """What the root of a mount shows to be wrong with it; '' if it is well."""
        return ""

    def source(self, c: F, path: Path) -> ImageFile:
        """What a guest is given."""
        return ImageFile(path, c.format, self.caching)

    def mount(self, c: F, at: Path) -> None:
        """Mount *c*'s share at *at*, which is prepared. Raises as :meth:`connect`."""
        self.run(at, self.mount_command(c, at), outlives=True)

    def tidy(self, at: Path) -> None:
        """Remove what :meth:`mount` may have left beside *at*."""

    # --- StorageBackend ---

    def shares(self, c: F) -> frozenset[str]:
        """See :class:`moorline.ports.Sharing`."""
        return frozenset({c.share})

    def link_name(self, c: F) -> LinkName:
        """The mount point."""
        return LinkName(str(self.mount_point(c)))

    def at(self, c: F, link: LinkName) -> F:
        """See :class:`moorline.ports.Placing`. A place whose name is not ours stays as it is."""
        return replace(c, at=Path(link))

    def inspect(self, c: F) -> Link:
        """Tell what is at the mount point. Blocks for the look's deadline at most."""
        return self.share_link(c)

    def verify(self, c: F) -> DiskSource:
        """See :meth:`moorline.ports.StorageBackend.verify`. Blocks for two looks at most."""
        self._demand_link(c)
        at = self.mount_point(c)
        return images.checked(self._host, at, self.source(c, at / c.name))

    def connect(self, c: F) -> None:
        """Mount the share, and see that it is what was asked for; there already is success."""
        link = self.share_link(c)
        if isinstance(link, Unlinked) and not self.is_given(c):
            self._connect(c)
        else:
            self._demand_link(c, link)

    def disconnect(self, c: F) -> None:
        """Unmount one layer (a crash may have left several). Not mounted is success.

        Lazily only where the client is seen to be gone, and with it all that was open there.
        The mount point goes as well, so that nothing is left, and nothing can
        be written where nothing is mounted. What the operator mounted stays.
        """
        if not self.is_given(c):
            self._take_away(self._hold(c))
        elif isinstance(link := self.share_link(c), Broken):
            raise Failed(link.reason, hint="the operator mounted it, and must renew it")

    # --- Discovering, Diagnosing ---

    def places(self) -> Sequence[Path]:
        """The directory of the mount points."""
        return [self._base]

    def links(self) -> Sequence[Found]:
        """Mounts of this kind at mount points of ours, and mount points without a mount.

        Whose kind the latter were cannot be told any more.
        """
        mounted = {Path(m.target).name: m for m in self._host.mounts() if self._is_ours(m.target)}
        try:
            names = os.listdir(self._base)  # noqa: PTH208 - no stat: one of them may hang
        except OSError:
            names = []
        bare = [n for n in names if n not in mounted and self._is_ours(str(self._base / n))]
        found = [
            Found(LinkName(mount.target), self._ill(Path(mount.target), mount))
            for mount in mounted.values()
            if self.claims(mount)
        ]
        return found + [self._bare(self._base / name) for name in bare]

    def clear(self, link: LinkName) -> None:
        """Unmount one layer and remove the mount point; as :meth:`disconnect`."""
        if not self._is_ours(link):
            raise Refused(f"{link} is no mount point of ours")
        self._take_away(Hold(self._host, Path(link), self.claims))

    def diagnose(self) -> Sequence[Finding]:
        """Whether the client is installed."""
        if not self.clients or any(map(shutil.which, self.clients)):
            return []
        return [
            Finding(
                "missing-client",
                self.kind,
                f"there is no command {' or '.join(self.clients)}",
                f"{self.kind} volumes are wanted here, and cannot be connected without it",
                f"command -v {self.clients[0]}",
            )
        ]

    # --- how ---

    def mount_point(self, c: F) -> Path:
        """Where *c*'s share is mounted. It depends on the share alone, and on former options."""
        if c.at:
            return c.at
        named = self._given.get(c.share) or self._places.get(c.share)
        return named or self._base / mountpoint.name(self.kind, c.share)

    def share_link(self, c: F) -> Link:
        """What is at the mount point of *c*'s share."""
        at = self.mount_point(c)
        if self.is_given(c):
            return self._look_at_given(c, at)
        mount = topmost(self._host, at)
        if mount is None:
            return self._look_beneath(self._hold(c))
        if not self.is_mount_of(c, mount):
            return Foreign(
                f"another file system ({mount.fstype}, {mount.source}) is mounted at {at}"
            )
        return self._look_at(c, at, mount)

    def is_given(self, c: F) -> bool:
        """Whether *c*'s share is the operator's to mount.

        No option tells that of a place of before, but its name tells whether we made it.
        """
        return not mountpoint.is_name(c.at.name) if c.at else c.share in self._given

    def run(
        self,
        at: Path,
        argv: tuple[str, ...],
        *,
        stdin: Secret[str] | None = None,
        outlives: bool = False,
    ) -> None:
        """Run a command that is part of mounting at *at*, one at a time even after a crash."""
        self._host.run(
            Command(
                argv,
                self._deadline,
                stdin=stdin,
                user=self._mount_user,
                outlives=outlives,
                hold=hold_file(at),
            )
        )

    def _is_ours(self, target: str) -> bool:
        at = Path(target)
        ours = at.parent == self._base and mountpoint.is_name(at.name)
        return ours or at in self._places.values()

    def _take_away(self, hold: Hold) -> None:
        at = hold.at
        mount = topmost(self._host, at)
        if mount is not None:
            if not hold.is_its(mount):
                raise NotOurs(f"another file system ({mount.fstype}) is mounted at {at}")
            unmount(self._host, at, mount, self._deadline, lambda: self._is_dead(at, mount))
        elif hold.held():
            raise Uncertain(f"a mount command for {at} still runs{hold.holders()}")
        self._clear(hold)

    def _is_dead(self, at: Path, mount: Mount) -> bool:
        ill = self._ill(at, mount)
        return isinstance(ill, Broken) and ill.client is Client.GONE

    def _hold(self, c: F) -> Hold:
        return Hold(self._host, self.mount_point(c), lambda mount: self.is_mount_of(c, mount))

    def _look_at(self, c: F, at: Path, mount: Mount) -> Link:
        return self._ill(at, mount) or Linked(self.source(c, at / c.name), given=self.is_given(c))

    def _ill(self, at: Path, mount: Mount) -> Broken | Foreign | Unknown | None:
        """What is wrong with a mount; None: it works."""
        try:
            root = self._host.root(at)
        except Uncertain:
            return Unknown(f"the share at {at} does not answer")
        except OSError as e:
            return self._unless_changed(at, mount, broken(self._host, at, mount, e))
        if root.path != at:
            return Foreign(f"{at} leads through a symbolic link to {root.path}")
        if f"{os.major(root.device)}:{os.minor(root.device)}" != mount.device:
            return Unknown(f"{at} does not lead to the mount that the mount table shows there")
        if ailment := self.ailment(root):
            return Broken(f"the mount at {at} is not sound: {ailment}")
        return None

    def _look_at_given(self, c: F, at: Path) -> Link:
        """Like :meth:`_look_at`; *at* may also be a directory of the file system."""
        mount = covering(self._host, at)
        if mount is None or not self.is_mount_of(c, mount):
            if mount is not None and mount.target == str(at):
                return Foreign(f"{at} is {mount.source} ({mount.fstype}), not the share")
            return Unlinked()
        return self._look_at(c, at, mount)

    def _bare(self, at: Path) -> Found:
        """A mount point at which nothing is mounted, whoever's it was."""
        ill = self._look_beneath(Hold(self._host, at, self.claims))
        others = self._host.elsewhere(at) if isinstance(ill, Unlinked) else ()
        return Found(LinkName(str(at)), ill, tuple(others))

    def _look_beneath(self, hold: Hold) -> Foreign | Unknown | Unlinked:
        at = hold.at
        if hold.held():
            why = f"a mount command for {at}, or the daemon that it left, still runs"
            return Unknown(f"{why}{hold.holders()}", hangs=False)
        try:
            empty = self._host.root(at, list=True).empty
        except (FileNotFoundError, PermissionError):
            return Unlinked()  # nothing there, or it is shut as we left it
        except Uncertain as e:
            return Unknown(f"it cannot be told whether {at} is empty: {e}")
        except OSError as e:
            return self._unless_mounted(hold, Foreign(f"{at} cannot be used: {said(e)}"))
        if empty:
            return Unlinked()
        # Data that was written beneath a mount point would vanish under the mount.
        polluted = Foreign(
            f"nothing is mounted at {at}, yet it is not empty: move its content away"
        )
        return self._unless_mounted(hold, polluted)

    def _unless_changed(self, at: Path, mount: Mount, link: L) -> L | Unknown:
        """*link*, unless somebody mounted or unmounted while it was looked at."""
        return link if covering(self._host, at) == mount else _changed(at)

    def _unless_mounted(self, hold: Hold, link: L) -> L | Unknown:
        """*link*, unless somebody mounted, or is about to, where nothing was mounted."""
        mounted = topmost(self._host, hold.at) is not None or hold.held()
        return _changed(hold.at) if mounted else link

    def _demand_link(self, c: F, link: Link | None = None) -> None:
        match link or self.share_link(c):
            case Foreign(reason):
                raise NotOurs(reason)
            case Unknown(reason):
                raise Uncertain(reason)
            case Broken(reason):
                raise Failed(reason)
            case Unlinked():
                raise Failed(f"nothing is mounted at {self.mount_point(c)}")

    def _connect(self, c: F) -> None:
        at = self.mount_point(c)
        hold = self._hold(c)
        mountpoint.prepare(at, self._mount_user)
        hold.renew()
        try:
            self.mount(c, at)
            # A command that says that it worked proves nothing.
            self._demand_link(c)
        except MoorlineError:
            self._clear(hold)
            raise

    def _clear(self, hold: Hold) -> None:
        """Remove what :meth:`_connect` made, unless it is needed still or again.

        Who removes a mount point takes away what other mount namespaces have mounted there
        (rmdir(2) has done so since Linux 3.19), so it stays for them.
        """
        at = hold.at
        until = time.monotonic() + _DAEMON_EXIT_SECONDS
        if topmost(self._host, at) is not None:
            return
        while hold.held():
            if time.monotonic() >= until:
                return
            time.sleep(0.01)
        self.tidy(at)
        if not self._host.elsewhere(at):
            mountpoint.remove(at)
        hold.remove()


def _changed(at: Path) -> Unknown:
    return Unknown(f"{at} changed while it was looked at")
