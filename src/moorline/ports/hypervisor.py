"""The seam to hypervisors: what plugs disk sources into guests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

from moorline.model import (
    DatastoreDisk,
    Disk,
    DiskOptions,
    DiskSource,
    Growable,
    Guest,
    GuestId,
    GuestName,
    ImageFile,
    NetworkDisk,
    Sizes,
    VolumeId,
)
from moorline.ports.datastores import Choice
from moorline.ports.guests import GuestLifecycle, GuestOptions, Launching
from moorline.ports.host import Host
from moorline.ports.inspection import Inventory
from moorline.ports.storage import Option, Values
from moorline.ports.store import Store
from moorline.secret import Secret


class Hypervisor(Protocol):
    """Plugs disk sources into guests."""

    kind: ClassVar[str]
    accepts: ClassVar[frozenset[type]]
    """The classes of disk source that :meth:`attach` takes."""
    look_command: ClassVar[str]
    """What a person types to look at its guests."""
    stop_command: ClassVar[str]
    """What a person types to stop a guest, whose name stands for ``{}``."""

    def find(self, guest: str) -> GuestName:
        """Look a guest up by name or id. Raises NotFound, Unavailable, Uncertain."""

    def survey(self) -> Sequence[Guest]:
        """Every guest on this host, running or stopped, in few calls.

        A guest whose definitions cannot be read is told with that (:attr:`Guest.unreadable`) and
        keeps nobody from seeing the others. That there is none is only said if all were listed:
        else it raises Uncertain or Unavailable.
        """

    def disks(self, guest: GuestId) -> Mapping[VolumeId, Disk]:
        """The guest's disks that bear our mark. A guest that is gone has none.

        Raises Unavailable (also of a guest that is unreadable), Uncertain.
        """

    def check(self, guest: GuestId, source: DiskSource, options: DiskOptions) -> None:
        """Refuse now what attach would refuse later; touch nothing. Raises Refused."""

    def attach(
        self, guest: GuestId, volume: VolumeId, source: DiskSource, options: DiskOptions
    ) -> None:
        """Plug the source in, marked with the volume's id in the same call.

        Live and persistently in a running guest, persistently in a stopped one. Heals PARTIAL.
        Already there is success. Raises Refused, Failed, Uncertain (may have happened), NotOurs.
        """

    def detach(self, guest: GuestId, volume: VolumeId) -> None:
        """Ask for the disk that bears the volume's mark to go, and wait a moment.

        Returning does not mean that it is gone: ask :meth:`disks`. A guest that was not listening
        is asked again by calling this again. Raises Failed, Uncertain.
        """

    def close(self) -> None:
        """Drop the connection to the hypervisor."""


@runtime_checkable
class ExtendingHypervisor(Hypervisor, Protocol):
    """A hypervisor that can let a guest see that its disk became larger."""

    def sizes(self, guest: GuestId, volume: VolumeId) -> Sizes:
        """How large the disk that bears the volume's mark is. Bounded in time.

        Raises NotFound (it has no such disk), Refused (it cannot be extended), Failed,
        Unavailable, Uncertain.
        """

    def extend(self, guest: GuestId, volume: VolumeId, size: int) -> int:
        """Let the guest see *size* bytes, and return how many it was told of.

        *size* is what :meth:`sizes` says of the storage, if it says anything: then nothing of it
        is changed, least of all made shorter. As large already is success, and told once more if
        the guest may have missed it. Raises as :meth:`sizes`.
        """


@runtime_checkable
class ShowingServed(ExtendingHypervisor, Protocol):
    """One that can show a guest that a server's disk, asked just now, has *stored* bytes."""

    def served_sizes(self, guest: GuestId, volume: VolumeId, stored: int) -> Sizes:
        """As :meth:`sizes`."""

    def show_served(self, guest: GuestId, volume: VolumeId, stored: int) -> int:
        """As :meth:`extend`, to *stored*."""


@runtime_checkable
class GrowingHypervisor(ExtendingHypervisor, Protocol):
    """A hypervisor whose running guests can make the files of their disks larger themselves."""

    def growable(self, guest: GuestId, volume: VolumeId) -> Growable:
        """How large the disk that bears the volume's mark is. Bounded in time.

        Raises NotFound (the guest has no such disk), Refused (nobody can make it larger as
        things are), Failed, Unavailable, Uncertain.
        """

    def grow(self, guest: GuestId, volume: VolumeId, size: int) -> None:
        """Have the guest, which runs, make the file *size* bytes large, and see it so.

        Never shorter. Raises as :meth:`growable`, and Failed (it does not run any more).
        """


@runtime_checkable
class LimitingHypervisor(Hypervisor, Protocol):
    """A hypervisor that can limit how much a guest asks of a disk, while the guest has it."""

    def limit(self, guest: GuestId, volume: VolumeId, limits: Mapping[str, int]) -> None:
        """Give the disk that bears the volume's mark these limits, and no others.

        *limits*: as :class:`moorline.model.Limits` has them; empty: none. The running guest
        has them at once, and keeps them when it is started anew. So already is success.
        Raises NotFound (the guest has no such disk), Refused, Failed, Uncertain.
        """


@runtime_checkable
class KeyKeeping(Hypervisor, Protocol):
    """A hypervisor that deciphers LUKS images for its guests, and keeps their keys for that.

    It may lose a key at any time (libvirt does when it is restarted). A guest that has the disk
    open goes on, and one that is started, or restored, needs the key again.
    """

    def has_key(self, guest: GuestId, volume: VolumeId) -> bool:
        """Whether it has a key for that disk. Raises NotOurs, Unavailable, Uncertain."""

    def give_key(self, guest: GuestId, volume: VolumeId, key: Secret[bytes]) -> None:
        """Have it keep the key, in memory alone, whether the disk is there yet or not.

        Has it already is success. Raises NotOurs, Refused, Failed, Uncertain.
        """

    def take_key(self, guest: GuestId, volume: VolumeId) -> None:
        """Have it keep the key no longer; its absence is success.

        Who has the disk open keeps it. Raises NotOurs, Failed, Uncertain.
        """


@runtime_checkable
class LoginKeeping(Hypervisor, Protocol):
    """A hypervisor that logs in to servers for its guests' disks, and keeps passwords for that.

    It has one until the detach, and may lose it as :class:`KeyKeeping` says of keys:
    :attr:`moorline.model.Disk.locked` tells.
    """

    def has_login(self, guest: GuestId, volume: VolumeId, source: NetworkDisk) -> bool:
        """Whether it has what *source* takes, if that is any. Raises as has_key."""

    def give_login(self, guest: GuestId, volume: VolumeId, source: NetworkDisk) -> None:
        """Have it keep the password of *source*, if it takes one. As give_key."""

    def take_login(self, guest: GuestId, volume: VolumeId) -> None:
        """Have it keep none, of a guest that was about to be started without the disk, too.

        Raises as take_key.
        """


@runtime_checkable
class RelocatingHypervisor(Hypervisor, Protocol):
    """A hypervisor that can move a guest's disk while the guest has it."""

    def relocate(
        self,
        guest: GuestId,
        volume: VolumeId,
        datastore: str,
        *,
        round_up: bool = False,
        progress: Callable[[int], None],
        dry_run: bool = False,
    ) -> DatastoreDisk:
        """Move it, and return where it is then. There already is success.

        *round_up*: it may become larger to fit. *progress* is told the percentage
        that is done. *dry_run*: only refuse what would be refused. Raises NotFound (not attached),
        Refused, Failed, Uncertain.
        """


@runtime_checkable
class Beginning(Hypervisor, Protocol):
    """A hypervisor that can look at a guest while its caller looks at something else."""

    def begin_disks(self, guest: GuestId) -> Callable[[], Mapping[VolumeId, Disk]]:
        """Begin :meth:`disks`; the function returned waits for it, and returns and raises as it."""


@runtime_checkable
class SurveyingChanges(Hypervisor, Protocol):
    """A hypervisor that can tell which of its guests have not changed since they were surveyed."""

    def survey_changes(self) -> Sequence[Guest]:
        """As :meth:`survey`, without asking again about guests that are as they were.

        Every change counts that was over before the call. For what looks before each plug, not
        for what decides that something goes.
        """


Settled = Callable[[GuestId, float], None]


@runtime_checkable
class Settling(Hypervisor, Protocol):
    """A hypervisor that can tell whether a guest is still being changed, by whomever."""

    def settled(self, guest: GuestId, seconds: float) -> None:
        """Return once nothing that was begun on *guest* earlier is under way any more.

        It was begun *seconds* ago. A survey sees then what came of it. A guest that is gone is
        settled. Raises Unavailable, Uncertain: that cannot be told, or it goes on.
        """


class DiskRenewal(Protocol):
    """Gives paused guests the files of disks anew that they lost with the client of a share.

    Nothing is undone: whoever calls again goes on from what is seen. What is refused leaves the
    guest paused. All raise NotFound, Refused, Failed, Unavailable, Uncertain.
    """

    def foresee(self, guest: GuestId, volume: VolumeId) -> None:
        """Refuse now what :meth:`renew` would refuse once the share's client is gone.

        As far as that can be told while the share hangs: nothing that might wait for it is asked.
        """

    def lost_file(self, guest: GuestId, volume: VolumeId) -> int | None:
        """The inode number of the disk's file, which a running guest has open on a mount that is
        no more; None: it has no such file open. Changes nothing.

        Raises Refused also if the disk, or the guest as it is, cannot be given another.
        """

    def renew(
        self, guest: GuestId, volume: VolumeId, source: ImageFile, unchanged: Callable[[], None]
    ) -> None:
        """Let the guest's disk have *source* open, as its path leads to it now.

        *unchanged*: called right before whatever may open the file, or let the guest write to it;
        raises Refused if it must not be.
        A guest that is stopped, or has it open already, is success.
        """

    def resume(self, guest: GuestId, about_to: Callable[[], None]) -> None:
        """Let a guest go on that an I/O error paused; others stay as they are.

        *about_to* is called before that, and may raise what keeps it paused. Raises Refused also if
        it still has a disk open on a mount that is no more.
        """


@runtime_checkable
class RenewingHypervisor(Hypervisor, Protocol):
    """A hypervisor whose running guests can be given the file of a disk anew."""

    def disk_renewal(self) -> DiskRenewal:
        """What does that, for as long as the hypervisor is open."""


Wake = Callable[[GuestId | None], None]
"""Told that something changed: with a guest, or with anything (None). Never blocks."""


@runtime_checkable
class Watching(Protocol):
    """What can tell that the world changed, so that nobody needs to look all the time."""

    def watch(self, wake: Wake, stop: threading.Event) -> None:
        """Tell each change until *stop* is set. Blocks until then, and raises nothing.

        Changes may be told late, twice, or lost: whoever must know looks now and then. After a
        time in which it was blind it wakes all.
        """


@runtime_checkable
class MakingGuests(Hypervisor, Protocol):
    """A hypervisor whose guests can be made, started, stopped and removed."""

    def lifecycle(self) -> GuestLifecycle[Any]:
        """What does that, for as long as the hypervisor is open."""


@runtime_checkable
class ChoosingDatastores(Hypervisor, Protocol):
    """A hypervisor that can tell which datastore suits a disk."""

    choosing: ClassVar[GuestOptions]
    """What can be asked of the disk and of the datastores."""

    def datastores(self, asked: Mapping[str, Any]) -> Choice:
        """Judge all, the best first. *asked*: as :meth:`GuestLifecycle.parse`, of :attr:`choosing`.

        Raises Refused, Failed, NotFound, Unavailable.
        """


@runtime_checkable
class Inspecting(Hypervisor, Protocol):
    """A hypervisor that can tell more of its guests than attaching needs."""

    def inventory(self) -> Inventory:
        """What tells it, for as long as the hypervisor is open."""


OnIdentity = Callable[[str], None]
"""Told a hypervisor's own id. Raises Refused if the state belongs to another, which is then
to be left alone; Unavailable."""


def any_identity(_: str) -> None:
    """As :data:`OnIdentity`, where any will do."""


@dataclass(frozen=True, slots=True)
class OpenContext:
    """Where a hypervisor is opened: what of this host it may need."""

    values: Values
    """The values of the options that drivers declared, by name."""
    host: Host
    store: Store
    name: str
    """This host's, in the store."""
    own: bool
    """Whether we are the host's owner, who alone may write to the store."""
    on_identity: OnIdentity
    """Told by a hypervisor that has a lasting id of its own, each time that it is logged on to."""


class HypervisorDriver(Protocol):
    """Opens a hypervisor; what an entry point of ``moorline.hypervisors`` leads to.

    The entry point's name is the scheme of the URIs that it takes. Its module is
    imported to tell the options, so it imports its library when it opens.
    """

    uris: ClassVar[str]
    """What its URIs look like, for people."""
    options: ClassVar[Sequence[Option]]
    """What can be configured."""

    @staticmethod
    def open(uri: str, context: OpenContext) -> Hypervisor:
        """Return the hypervisor, not connected yet.

        Raises Refused (the URI or an option is unusable, or its library is not
        installed), Denied (a file with a password is not for us alone to read).
        """


@runtime_checkable
class LaunchingDriver(Protocol):
    """The driver of a hypervisor that is :class:`MakingGuests`."""

    launching: ClassVar[Launching]
    """As of its :class:`GuestLifecycle`."""


@runtime_checkable
class ChoosingDriver(Protocol):
    """The driver of a hypervisor that is :class:`ChoosingDatastores`."""

    choosing: ClassVar[GuestOptions]
    """As of that."""
