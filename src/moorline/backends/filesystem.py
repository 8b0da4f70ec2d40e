"""The facts of a file system that holds disk images; no mechanism.

:class:`moorline.backends.mounter.Mounter` makes a back end of such facts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from moorline.backends.mount_point import MountPoint
from moorline.model import Caching, Format, ImageFile, LinkName, VolumeId
from moorline.ports import Mount, Root


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


class FileSystem(ABC, Generic[F]):
    """One kind of file system: its connections, its mounts, the mount command, a sound root."""

    kind: ClassVar[str]
    caching: ClassVar[Caching] = Caching.DEFAULT
    is_ours: ClassVar[bool] = True
    """Whether we mount it; else its own daemon does."""

    def clients(self, *, given: bool) -> Sequence[str]:
        """Commands that mount it, of which one is needed. *given*: the operator mounts some."""
        return ()

    @classmethod
    def canonical(cls, share: str) -> str:
        """A share that the operator names, as we write it. Raises Refused if it is none."""
        return share

    @abstractmethod
    def from_url(self, url: str, format: Format | None) -> Mapping[str, Any]:
        """See :meth:`moorline.ports.StorageBackend.from_url`."""

    def url(self, c: F) -> str:
        """See :class:`moorline.ports.Naming`."""
        return f"{self.kind}://{c.share}/{c.name}"

    @abstractmethod
    def parse(self, connection: Mapping[str, Any]) -> F:
        """See :meth:`moorline.ports.StorageBackend.parse`."""

    @abstractmethod
    def claims(self, mount: Mount) -> bool:
        """Whether *mount* is of this kind of file system."""

    def exports(self, mount: Mount) -> Sequence[str]:
        """The share of a mount that it claims, as connections may spell it, the likeliest first.

        None, if the mount's source does not tell the share.
        """
        return ()

    def data(self, share: str, name: str) -> Mapping[str, str]:
        """The data of a connection that names a file on a share."""
        return {"export": share, "name": name}

    @abstractmethod
    def is_mount_of(self, c: F, mount: Mount) -> bool:
        """Whether *mount* may be of *c*'s share."""

    def is_given_mount_of(self, c: F, mount: Mount) -> bool:
        """The same, for a mount that the operator made where *c*'s share belongs."""
        return self.is_mount_of(c, mount)

    @abstractmethod
    def mount_command(self, c: F, at: Path) -> tuple[str, ...]:
        """The command that mounts *c*'s share at *at*."""

    def mount(self, c: F, point: MountPoint) -> None:
        """Mount *c*'s share at *point*, which is prepared. Raises as ``connect``."""
        point.run(self.mount_command(c, point.at), outlives=True)

    def tidy(self, at: Path) -> None:
        """Remove what :meth:`mount` may have left beside *at*."""

    def defect(self, root: Root) -> str:
        """What the root of a mount shows to be wrong with the mount; '' if it is sound."""
        return ""

    def writes_through(self, c: F) -> bool:
        """See :class:`moorline.ports.WritingThrough`."""
        return False

    def source(self, c: F, path: Path) -> ImageFile:
        """The source of the guest's disk."""
        return ImageFile(path, c.format, self.caching)

    def shares(self, c: F) -> frozenset[str]:
        """See :class:`moorline.ports.Sharing`."""
        return frozenset({c.share})

    def at(self, c: F, link: LinkName) -> F:
        """See :class:`moorline.ports.Placing`. A place whose name is not ours stays as it is."""
        return replace(c, at=Path(link))
