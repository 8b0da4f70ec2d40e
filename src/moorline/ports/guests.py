"""Guests themselves: what can be asked of one, and the seam that makes and removes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar, Protocol, TypeVar

from moorline.model import GuestId, GuestName

H = TypeVar("H")
"""What a hypervisor's guest is made of, as that hypervisor reads it."""


class Kind(Enum):
    """What the value of a :class:`GuestOption` is."""

    FLAG = "flag"
    COUNT = "count"
    """A whole number, at least 1."""
    MIB = "mib"
    """A size in MiB."""
    BYTES = "bytes"
    TEXT = "text"
    FILE = "file"
    """The absolute path of a file on the host, which is read there."""
    DOCUMENT = "document"
    """The content of a text file, such as the XML of a guest."""


@dataclass(frozen=True, slots=True)
class GuestOption:
    """Something that can be asked where guests are made."""

    name: str
    """In words with hyphens, as it is typed; programs write underscores."""
    kind: Kind
    help: str
    metavar: str = ""
    choices: Sequence[str] = ()
    """The texts that are possible; none: all are."""

    @property
    def key(self) -> str:
        """The name as programs write it."""
        return self.name.replace("-", "_")


@dataclass(frozen=True, slots=True)
class OneOf:
    """At most one of these options (keys) may be asked for; *needed*: exactly one."""

    keys: Sequence[str]
    needed: bool = False


@dataclass(frozen=True, slots=True)
class GuestOptions:
    """What can be asked, and what of it excludes each other."""

    each: Sequence[GuestOption] = ()
    one_of: Sequence[OneOf] = ()


@dataclass(frozen=True, slots=True)
class Launching:
    """How the guests of a hypervisor are made and removed."""

    options: GuestOptions
    """What a guest is made of, besides its volumes."""
    from_volumes: bool
    """A guest boots from a volume, and has no other disks; else its disks are its own,
    are made with it and go with it."""
    removal: GuestOptions
    """How it can be removed: those of ``force`` and ``any`` that are meaningful."""


@dataclass(frozen=True, slots=True)
class GuestState:
    """A guest itself, as it is seen."""

    guest: GuestName
    running: bool
    launched: bool
    """It bears our mark: we made it, and may remove it."""
    saved: bool = False
    """It is stopped, and its memory was saved: it would go on where it was."""
    boot: int = 0
    """The place in the boot order that is free for a volume; 0: that order is not by device."""
    half: bool = False
    """It was not made wholly: :meth:`GuestLifecycle.define` begins anew."""
    disks: Sequence[str] = ()
    """The paths of its disks, where those are its own."""


class GuestLifecycle(Protocol[H]):
    """Makes, starts, stops and removes guests. Commands are idempotent; :meth:`look` tells.

    All raise Unavailable and Uncertain; a guest that is gone is NotFound to
    :meth:`look` and :meth:`start`, and success to the others.
    """

    launching: ClassVar[Launching]

    def parse(self, name: str, asked: Mapping[str, Any]) -> H:
        """Read what is asked of the guest *name*: options that were declared, by their keys.

        Each is of its kind, and no two exclude each other. Raises Refused, Failed.
        """

    def look(self, guest: GuestId) -> GuestState:
        """What is there now."""

    def check(self, name: str, hardware: H) -> None:
        """Refuse now what :meth:`define` would refuse later; change nothing. Raises NotOurs."""

    def define(self, name: str, hardware: H, progress: Callable[[str], None]) -> None:
        """Make a stopped guest without volumes, marked as ours in the same call.

        A guest of that name that bears our mark is success, and stays as it is.
        *progress* is told what goes on where that takes long, ``…: N %`` where it is known.
        Raises NotOurs (another has the name), Refused (what is asked for cannot
        be had, or is not what the guest has), Failed.
        """

    def start(self, guest: GuestId) -> None:
        """Boot it. Raises Failed, Refused and NotOurs (not such a guest)."""

    def stop(self, guest: GuestId, *, force: bool) -> None:
        """Ask it to shut down, and return; *force*: cut its power, drop its saved memory.

        Raises Refused (memory that was saved would be lost), Failed.
        """

    def check_removal(self, guest: GuestId) -> None:
        """Refuse now what :meth:`remove` would refuse later; change nothing."""

    def remove(self, guest: GuestId) -> None:
        """Forget a stopped guest and what belongs to it alone, never a volume.

        Raises Refused (something else would be lost with it), NotOurs, Failed.
        """
