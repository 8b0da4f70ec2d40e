"""Guests themselves: what they are made of, and the seam that makes and removes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType, Protocol

from moorline.model import GuestId, GuestName

Document = NewType("Document", str)
"""A text of some length, such as the XML of a guest."""
NO_DOCUMENT = Document("")


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a guest is made of, besides its disks.

    None and '': the template says it or, without one, the hypervisor chooses.
    """

    memory: int | None = None
    """MiB."""
    vcpus: int | None = None
    network: str = ""
    """The hypervisor's name for it, or ``none``."""
    template: Document = NO_DOCUMENT
    """The hypervisor's own description of a guest (libvirt: a ``<domain>``). Its name,
    its id and its hard disks are not taken from there; everything else is. What only
    one guest can have (a MAC address) is refused if another one has it."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A guest itself, as it is seen."""

    guest: GuestName
    running: bool
    launched: bool
    """It bears our mark: we made it, and may remove it."""
    saved: bool
    """It is stopped, and its memory was saved: it would go on where it was."""
    boot: int
    """The place in the boot order that is free for a volume; 0: that order is not by device."""


class Machines(Protocol):
    """Makes, starts, stops and removes guests. Commands are idempotent; :meth:`look` tells.

    All raise Unavailable and Uncertain; a guest that is gone is NotFound to
    :meth:`look` and :meth:`start`, and success to the others.
    """

    def look(self, guest: GuestId) -> Machine:
        """What is there now."""

    def check(self, name: str, hardware: Hardware) -> None:
        """Refuse now what :meth:`define` would refuse later; change nothing. Raises NotOurs."""

    def define(self, name: str, hardware: Hardware) -> None:
        """Make a stopped guest without hard disks, marked as ours in the same call.

        A guest of that name that bears our mark is success, and stays as it is.
        Raises NotOurs (another has the name), Refused (the template or the
        hardware cannot be used, or is not what the guest has), Failed.
        """

    def start(self, guest: GuestId) -> None:
        """Boot it. Raises Failed."""

    def stop(self, guest: GuestId, *, force: bool) -> None:
        """Ask it to shut down, and return; *force*: cut its power, drop its saved memory.

        Raises Refused (memory that was saved would be lost), Failed.
        """

    def remove(self, guest: GuestId) -> None:
        """Forget a stopped guest and what belongs to it alone, never a disk. Raises Failed."""

    def close(self) -> None:
        """Drop the connection to the hypervisor."""
