"""What a host's owner offers: the façade and the client that reaches it through an agent have it.

The methods are what the agent serves, with these names, arguments and values;
what is said of them here is its documentation. All raise the errors of
:mod:`moorline.errors`; those that change something can be repeated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from moorline.disk_options import AS_IT_COMES
from moorline.model import DiskOptions, Format, Level
from moorline.ports.datastores import Choice
from moorline.ports.guest_results import GuestOutcome, GuestView
from moorline.ports.maintenance import Maintenance as Maintenance
from moorline.ports.progress import Progress, no_progress
from moorline.ports.results import Extended, Outcome, View


class Attachments(Protocol):
    """The volumes of this host's guests."""

    def attach(
        self,
        guest: str,
        connection: Mapping[str, Any] | str,
        *,
        format: Format | None = None,
        volume: str | None = None,
        level: Level = Level.ATTACHED,
        options: DiskOptions = AS_IT_COMES,
        hands_off: bool = False,
        vouch: str = "",
        label: str = "",
        timeout: float | None = None,
        wait: bool = True,
        progress: Progress = no_progress,
        dry_run: bool = False,
    ) -> Outcome:
        """Record that a volume be a disk of *guest*, and see to it.

        *guest*: name or id. *connection*: Cinder's ``connection_info``, or what a person
        types (``quobyte://reg/volume/file``, ``/path/to/file``), then with *format*.
        *volume*: its id, where the connection bears none. *hands_off*: somebody else (Nova)
        plugs the disk and defines the guest, now or later: *guest* is its id, the level at
        most CONNECTED. *vouch*: on a host of a fleet, which gives volumes to guests itself: why
        a person is sure that no other host has this one. The fleet does not know of it then.
        *label*: what it belongs to; '' keeps what it has. *timeout*: seconds to go on trying;
        None: 60, or less where the same step fails again and again. *wait*: if not, return once
        it is recorded: an agent's loop or a sweep does the rest. *dry_run*: change nothing.

        Success means that it was seen to be so, or without *wait* that it is recorded.
        Refused: nothing is left of the attachment, and one that stood before is as it was.
        Unavailable: nothing was recorded. Failed, Uncertain, NotOurs: the attachment stands,
        and repeating this call or a sweep goes on with it. One that stood keeps its
        connection until a new one has worked.
        """

    def detach(
        self,
        guest: str,
        volume: str,
        *,
        hands_off: bool = False,
        timeout: float = 60.0,
        wait: bool = True,
        progress: Progress = no_progress,
        dry_run: bool = False,
    ) -> Outcome | None:
        """Record that a volume be no disk of *guest* any more, and see to it.

        *volume*: its id, the beginning of its id, its device in the guest, or what
        was typed to attach it. Returns None if it is a whole id, and there was
        nothing to do: no such disk, nor a guest, if that goes by a whole id too. The
        link goes when nobody else needs it. NotFound: no guest is called that, or
        nothing of it. Failed: the guest has not let go; the attachment stands. Refused:
        no volume can be called that, or several are; or a fleet may have it for that guest.
        NotOurs: a disk bears the volume's mark, and we never plugged it.
        *hands_off*: only what was attached so is meant, by its ids; returns
        before the link is gone where the guest still names it. *wait*: as of ``attach``.
        """

    def set(
        self,
        guest: str,
        volume: str,
        options: DiskOptions,
        *,
        timeout: float = 60.0,
        progress: Progress = no_progress,
        dry_run: bool = False,
    ) -> Outcome:
        """Change how a volume is limited, in the record and at once in *guest* if it runs.

        *options*: what it says is changed, and the rest stays; a limit of 0 takes one away.
        Raises NotFound, Refused (an option that holds as long as the disk is plugged, or limits
        that contradict each other: all is as it was), Failed, Uncertain, NotOurs: it is recorded,
        and repeating this call or a sweep goes on with it.
        """

    def extend(
        self,
        guest: str,
        volume: str,
        size: int | None = None,
        *,
        grow: bool = False,
        timeout: float = 60.0,
        progress: Progress = no_progress,
        dry_run: bool = False,
    ) -> Extended:
        """Let *guest* see, while it runs, that a volume of its became larger.

        *size*: in bytes. Without it, as large as the storage has it now. Where
        files and block devices are the storage (libvirt, PowerVM), those must
        have been extended already, and are left as they are; vSphere's disks
        are made larger. As large already is success, and nothing is done.

        *grow*: the raw or qcow2 file is made larger, too: by the guest that has it open, and
        while the guest is stopped by ``qemu-img``. It never becomes shorter.

        Raises NotFound (not attached), Refused (it would shrink, or this cannot
        be done while the guest runs), Failed (the storage is not as large yet,
        say), Uncertain. Nothing is recorded: repeat the call to go on.
        """

    def relocate(
        self,
        guest: str,
        volume: str,
        datastore: str,
        *,
        round_up: bool = False,
        progress: Progress = no_progress,
        dry_run: bool = False,
    ) -> View:
        """Move a volume of *guest* to another datastore while the guest has it (vSphere).

        *round_up*: it may become larger where the datastore wants whole MiB.
        There already is success. Blocks as long as the data takes to move. *dry_run*: only
        see whether it could be moved.
        Raises NotFound (not attached), Refused, Failed, Uncertain: repeat the
        call to go on.
        """

    def forget(
        self, volume: str, guest: str | None = None, *, dry_run: bool = False
    ) -> Sequence[View]:
        """Drop attachments whose disk and link are provably gone.

        Raises NotFound, and Refused if anything of it is still there.
        """

    def sweep(self, progress: Progress = no_progress, *, dry_run: bool = False) -> Sequence[View]:
        """Bring every attachment as far as it goes without waiting.

        *dry_run*: change nothing, and return those that are not as wanted. Else
        returns those that are not as wanted afterwards, with what stands in
        the way. One attachment's error never stops another.
        """

    def list(
        self, *, guest: str | None = None, share: str | None = None, sizes: bool = False
    ) -> Sequence[View]:
        """Describe the attachments of this host, by guest and volume. Changes nothing.

        *guest*: those of this guest alone (as of ``attach``). *share*: those alone whose
        link it is, or whose ``storage`` begins with it. *sizes*: also find out how large
        they are, for which each volume is looked at. Raises NotFound (no such guest, or no
        attachment is on such a share).
        """

    def show(self, volume: str, guest: str | None = None) -> Sequence[View]:
        """Describe the attachments of one volume, how large it is, and who else needs its link.

        *guest*: only that for this guest; *volume* may be its device there. Raises
        NotFound. Changes nothing.
        """


class Guests(Protocol):
    """The guests of this host themselves.

    Each method looks at what there is, and does what is missing.
    """

    def launch(
        self,
        name: str,
        boot: Mapping[str, Any] | str | None = None,
        *,
        format: Format | None = None,
        connections: Sequence[Mapping[str, Any]] = (),
        hardware: Mapping[str, Any] | None = None,
        options: DiskOptions = AS_IT_COMES,
        start: bool = True,
        vouch: str = "",
        timeout: float = 60.0,
        progress: Progress = no_progress,
        dry_run: bool = False,
    ) -> GuestOutcome:
        """Make a guest, and start it.

        *boot*, *format*, *connections*: the volume that it boots from, as of
        ``attach``, and more of them, where the hypervisor's guests boot from volumes;
        else it gets a disk of its own, from what *hardware* says. *hardware*: what it is
        made of, by the keys of the options that the hypervisor declares. *options*: of all its
        volumes. *vouch*: as of ``attach``. *timeout*:
        seconds to go on trying with the volumes; a disk that is brought in takes as
        long as its bytes need. *dry_run*: change nothing, and return the steps to come.

        Refused: nothing is left of what this call made. NotOurs: another guest
        has the name. Denied: this user may not name a file of the host.
        Failed, Uncertain: it stands as far as it came; repeat the call to go on.
        """

    def start(
        self,
        guest: str,
        *,
        vouch: str = "",
        timeout: float = 60.0,
        progress: Progress = no_progress,
        dry_run: bool = False,
    ) -> GuestOutcome:
        """Bring the volumes of *guest* (name or id) as far as they are wanted, then boot it.

        *vouch*: on a host whose fleet does not answer: why a person is sure that no other
        host has the guest. *timeout*: seconds to go on trying with the volumes. *dry_run*: as
        of ``launch``. Raises NotFound, Refused, Unavailable (no agent asks the fleet), Failed
        (also if the fleet does not answer: the agent starts it when that does),
        Uncertain, NotOurs; the guest is not started then.
        """

    def remove(
        self,
        guest: str,
        *,
        force: bool = False,
        any: bool = False,
        timeout: float = 60.0,
        progress: Progress = no_progress,
        dry_run: bool = False,
    ) -> GuestOutcome | None:
        """Stop a guest, take its volumes away, and forget it; the volumes' data stays.

        Where guests have a disk of their own, that goes with them, and volumes must
        have been detached before.
        *force*: cut its power instead of asking it to shut down. *any*: also one
        that was not launched by Moorline, or has volumes that this state has no record of.
        *timeout*: seconds for the shutdown,
        and again for the volumes. *dry_run*: as of ``launch``, and whether it runs now.
        Returns None if there is no guest of that whole id.

        Raises NotFound (no guest has that name, nor left anything under it), NotOurs
        (without *any*), Refused (on a host of a fleet also where there is none of that whole
        id: it may be elsewhere), Failed (it did not shut down, or does not let go),
        Uncertain. Repeat the call to go on.
        """

    def all(self) -> Sequence[GuestView]:
        """All guests of this host, by name. Raises Unavailable, Uncertain."""

    def datastores(self, asked: Mapping[str, Any]) -> Choice:
        """Judge the datastores that a disk could go to, the best first. Changes nothing.

        *asked*: of the disk and of them, by the keys of the options that the
        hypervisor declares. Raises Refused (among others: it has no datastores),
        NotFound, Denied.
        """

    def ready(
        self, guest: str, *, timeout: float = 60.0, progress: Progress = no_progress
    ) -> list[str]:
        """Make the links that *guest* (its id) needs; return the volumes that needed it.

        Asks no hypervisor, so it may be called from a hook that a hypervisor
        waits for; hence no names, which change. A guest that is not known here
        needs none. *timeout*: seconds for all of them. Raises Refused (a disk's name leads to what
        may not be opened by now, too), Failed, Uncertain, NotOurs.
        """

    def permit(self, guest: str, *, ours: bool, arriving: bool = False) -> None:
        """Raise unless *guest* (its id) may be started here now: another host may have it.

        For a hook that a hypervisor waits for, as :meth:`ready`. *ours*: it has a disk that
        bears Moorline's mark. *arriving*: a copy is about to come from another host. A
        host that is in no fleet permits all. Raises Refused (another host has it), Failed
        (that cannot be told now: it is started later), Unavailable (as that, and it is not).
        """

    def unready(self, guest: str) -> list[str]:
        """The volumes wanted by *guest* (its id) whose links are not there. Asks no hypervisor.

        Raises Refused, Failed, Uncertain: a disk whose link is there may not be opened.
        """


class Api(Protocol):
    """All of it. Safe to use from several threads; closed at the end of a ``with``."""

    @property
    def attachments(self) -> Attachments:
        """The volumes of this host's guests."""

    @property
    def guests(self) -> Guests:
        """The guests themselves."""

    @property
    def maintenance(self) -> Maintenance:
        """For people who look after the host."""

    def close(self) -> None:
        """Let go of what is held: of a façade the hypervisor, the store and the host lock."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
