"""The seam to hypervisors: what plugs disk sources into guests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Protocol, runtime_checkable

from moorline.model import (
    Disk,
    DiskOptions,
    DiskSource,
    Guest,
    GuestId,
    GuestName,
    Sizes,
    VolumeId,
)


class Hypervisor(Protocol):
    """Plugs disk sources into guests."""

    kind: ClassVar[str]
    accepts: ClassVar[frozenset[type]]
    """The classes of disk source that :meth:`attach` takes."""

    def find(self, guest: str) -> GuestName:
        """Look a guest up by name or id. Raises NotFound, Unavailable, Uncertain."""

    def survey(self) -> Sequence[Guest]:
        """Every guest on this host, running or stopped, in few calls.

        All or nothing: raises Uncertain or Unavailable if one guest cannot be
        looked at, because what it uses is then unknown.
        """

    def disks(self, guest: GuestId) -> Mapping[VolumeId, Disk]:
        """The guest's disks that bear our mark. A guest that is gone has none.

        Raises Unavailable, Uncertain.
        """

    def check(self, guest: GuestId, source: DiskSource, options: DiskOptions) -> None:
        """Refuse now what attach would refuse later; touch nothing. Raises Refused."""

    def attach(
        self, guest: GuestId, volume: VolumeId, source: DiskSource, options: DiskOptions
    ) -> None:
        """Plug the source in, marked with the volume's id in the same call.

        Live and persistently in a running guest, persistently in a stopped
        one. Heals PARTIAL. Already there is success.
        Raises Refused, Failed, Uncertain (may have happened), NotOurs.
        """

    def detach(self, guest: GuestId, volume: VolumeId) -> None:
        """Ask for the disk that bears the volume's mark to go, and wait a moment.

        Returning does not mean that it is gone: ask :meth:`disks`. A guest
        that was not listening is asked again by calling this again.
        Raises Failed, Uncertain.
        """

    def close(self) -> None:
        """Drop the connection to the hypervisor."""


@runtime_checkable
class ExtendingHypervisor(Hypervisor, Protocol):
    """A hypervisor that can let a guest see that its disk became larger."""

    def sizes(self, guest: GuestId, volume: VolumeId) -> Sizes:
        """How large the disk that bears the volume's mark is. Bounded in time.

        Raises NotFound (the guest has no such disk), Refused (it cannot be
        extended), Failed, Unavailable, Uncertain.
        """

    def extend(self, guest: GuestId, volume: VolumeId, size: int) -> int:
        """Let the guest see *size* bytes, and return how many it was told of.

        *size* is what :meth:`sizes` says of the storage, if it says anything:
        then nothing of the storage is changed, least of all made shorter. As
        large already is success. Raises as :meth:`sizes`.
        """


Wake = Callable[[GuestId | None], None]
"""Told that something changed: with a guest, or with anything (None). Never blocks."""


@runtime_checkable
class Watching(Protocol):
    """What can tell that the world changed, so that nobody needs to look all the time."""

    def watch(self, wake: Wake, stop: threading.Event) -> None:
        """Tell each change until *stop* is set. Blocks until then, and raises nothing.

        Changes may be told late, twice, or lost: whoever must know looks now
        and then. After a time in which it was blind it wakes all.
        """
