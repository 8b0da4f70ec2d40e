"""The seam to hypervisors whose guests go from host to host."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

from moorline.model import GuestId, VolumeId
from moorline.ports.hypervisor import Hypervisor


class Presence(StrEnum):
    """How a guest is on a host."""

    ABSENT = "absent"
    """Neither defined nor running."""
    STOPPED = "stopped"
    RUNNING = "running"
    """Or about to, or paused by somebody: it may write."""
    SENT = "sent"
    """Paused here by a migration that did not end: its memory is here, and may be there as well."""
    INCOMING = "incoming"
    """A copy that is not whole yet."""
    ARRIVED = "arrived"
    """A whole copy that has been paused since it came."""


@dataclass(frozen=True, slots=True)
class Present:
    """A guest that is on this host."""

    name: str
    presence: Presence
    memory: int = 0
    """MiB that it may use; 0: it cannot be told."""


class GuestMover(Protocol):
    """Brings a host's guests to other hosts, and starts and stops them.

    Commands are idempotent: what is so already is success. All raise Failed, Unavailable,
    Refused, and Uncertain: then it may go on by itself.
    """

    def present(self) -> Mapping[GuestId, Present]:
        """Every guest that is here. That one is not is only said if all were listed."""

    def definition(self, guest: GuestId) -> bytes:
        """All that :meth:`define` needs to make the guest anew, passwords among it."""

    def define(self, guest: GuestId, definition: bytes, volumes: Container[VolumeId]) -> None:
        """Make it a stopped guest of this host, of our disks with those of *volumes* alone: others
        were taken from it since, and may be another guest's.
        """

    def undefine(self, guest: GuestId) -> None:
        """Forget a stopped guest, so that nobody can start it here. What it runs from stays."""

    def start(self, guest: GuestId) -> None:
        """Boot it. Raises NotFound."""

    def stop(self, guest: GuestId) -> None:
        """Cut the power of whatever copy is here: running, paused, or on its way."""

    def resume(self, guest: GuestId) -> None:
        """Let a copy run that is SENT or ARRIVED. Raises NotFound."""

    def send(self, guest: GuestId, host: str) -> None:
        """Move it to *host* while it runs, where it stays paused until :meth:`resume`.

        Returns when it is not here any more. Blocks as long as that takes. Failed and Refused
        mean that it stays here, and that nothing goes on. Raises Failed also where *host*
        has any copy of it.
        """


@runtime_checkable
class MovingHypervisor(Hypervisor, GuestMover, Protocol):
    """A hypervisor whose guests can go to another host's."""
