"""What a back end can tell of a disk that somebody else plugged: for ``adopt --all``.

Each protocol is optional. Nothing is changed; what is asked is bounded in time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from moorline.ports.inspection import GuestDisk
from moorline.ports.mount import Mount


@dataclass(frozen=True, slots=True)
class Setting:
    """An option whose value is a list, and all that must be in it: also what is so already."""

    option: str
    entries: tuple[str, ...]

    @property
    def value(self) -> str:
        """The option's value, as it is written in a configuration file."""
        return ", ".join(self.entries)


@dataclass(frozen=True, slots=True)
class Recognised:
    """A disk's connection, as far as its path and its mount tell it: without credentials."""

    connection: Mapping[str, Any]
    setting: Setting | None = None
    """What must be configured before the connection leads to the disk; None: nothing."""


@runtime_checkable
class Recognising(Protocol):
    """A back end that can tell the connection of a disk from where the disk is."""

    def recognise(
        self,
        disk: GuestDisk,
        mount: Mount | None,
        *,
        ours: bool = False,
        known: Sequence[Any] = (),
    ) -> Recognised | None:
        """What *disk* is, whose path lies on *mount*; None: nothing of this kind.

        *known*: connections of this kind, parsed, that are wanted on this host: where the mount
        table tells a share by halves, they may tell it.
        *ours*, and Refused: as of :class:`Locating`, or what is there does not tell which
        volume of this kind it is.
        """


@runtime_checkable
class Locating(Protocol):
    """A back end whose options say where shares are that others have mounted."""

    def setting(self, c: Any, disk: GuestDisk, mount: Mount, *, ours: bool) -> Setting | None:
        """With which setting the connection *c* leads to *disk*, whose path lies on *mount*.

        *ours*: the mount shall be Moorline's from then on, unmounted after its last user and
        mounted there again; else it is left to whoever made it. None: none is
        missing, or none would help. Raises Refused: no setting can say it, or it is not sure
        that the mount is of that share.
        """
