"""What the controller serves over HTTP: the fleet's queries and orders, in values of JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from moorline.core.name_lookup import is_whole
from moorline.disk_options import AS_IT_COMES
from moorline.errors import NotFound
from moorline.fleet.fencing_proofs import word
from moorline.fleet.fleet import Fleet
from moorline.fleet.results import (
    FleetEvent,
    FleetExplanation,
    FleetOutcome,
    FleetView,
    GuestView,
    HostView,
)
from moorline.model import Attachment, DiskOptions, Format
from moorline.ports.progress import Progress, no_progress

Parse = Callable[
    [Mapping[str, Any] | str, Format | None, str | None, DiskOptions],
    Attachment,
]
"""What is wanted, of a connection, a format, an id and options. Raises Refused, Denied."""


class Orders:
    """All can be repeated. What is not done when *timeout* (seconds) is over raises Failed: it
    stands, and goes on without the caller.
    """

    def __init__(self, fleet: Fleet, parse: Parse, who: Callable[[], str]) -> None:
        """*who*: says who asks, for the record."""
        self._fleet = fleet
        self._parse = parse
        self._who = who

    def hosts(self) -> Sequence[HostView]:
        """Every host of the fleet, and what is on it."""
        return self._fleet.hosts()

    def guests(self) -> Sequence[GuestView]:
        """Every guest of the fleet, and where it is."""
        return self._fleet.guests()

    def list(self, host: str | None = None, guest: str | None = None) -> Sequence[FleetView]:
        """Every attachment, or those of one host, or of one guest (name or id); also what hosts
        have by themselves. Raises NotFound.
        """
        return self._fleet.attachments(host, guest)

    def show(self, volume: str) -> Sequence[FleetView]:
        """The attachments of a volume, by its id or the beginning of a UUID. Raises NotFound."""
        return self._fleet.show(volume)

    def explain(self, name: str) -> Sequence[FleetExplanation]:
        """How a guest (name or id) with its volumes stands, or a volume. Raises NotFound."""
        return self._fleet.explain(name)

    def events(
        self,
        host: str | None = None,
        *,
        guest: str = "",
        volume: str = "",
        since: float = 0.0,
        most: int = 1000,
    ) -> Sequence[FleetEvent]:
        """The latest of what was done and seen on hosts, and decided about them; oldest first.

        *since*: seconds since the epoch. Raises NotFound.
        """
        return self._fleet.events(host, guest=guest, volume=volume, since=since, most=most)

    def attach(
        self,
        guest: str,
        connection: Mapping[str, Any] | str,
        *,
        format: Format | None = None,
        volume: str | None = None,
        options: DiskOptions = AS_IT_COMES,
        timeout: float = 60.0,
        progress: Progress = no_progress,
        dry_run: bool = False,
    ) -> FleetOutcome:
        """Make a volume a disk of *guest* (name or id), whichever host that is on.

        *connection*, *format*, *volume*: as of the agent's ``attach``. Raises Refused (another
        guest has the volume, and is named; or its host refuses it), Busy (the guest is on its
        way to another host), NotFound.
        """
        wanted = self._parse(connection, format, volume, options)
        return self._fleet.attach(
            guest, wanted, timeout=timeout, progress=progress, dry_run=dry_run
        )

    def detach(
        self,
        guest: str,
        volume: str,
        *,
        timeout: float = 60.0,
        progress: Progress = no_progress,
        dry_run: bool = False,
    ) -> FleetOutcome:
        """Take a volume from *guest*, whichever host that is on.

        *volume*: its id, or the beginning of a UUID. A whole UUID that is not there is success,
        with no steps; all else that is not known raises NotFound, also where the guest's host has
        not told which disks it has. NotOurs: a host has it by itself, for that guest, or somebody
        else plugged it.
        """
        outcome = self._fleet.detach(
            guest, volume, timeout=timeout, progress=progress, dry_run=dry_run
        )
        if not (outcome.steps or is_whole(volume)):
            raise NotFound(f"no volume of {outcome.guest} is {volume}", hint="moorline fleet list")
        return outcome

    def migrate(
        self,
        guest: str,
        host: str,
        *,
        timeout: float = 300.0,
        progress: Progress = no_progress,
        dry_run: bool = False,
    ) -> FleetOutcome:
        """Bring *guest* to *host* with its volumes, live if it runs. There already is success.

        Raises Refused (that host cannot have it, or is cordoned), Failed (it stays; why).
        """
        return self._fleet.migrate(
            guest, host, by=self._who(), timeout=timeout, progress=progress, dry_run=dry_run
        )

    def give_up(
        self,
        guest: str,
        *,
        timeout: float = 60.0,
        progress: Progress = no_progress,
        dry_run: bool = False,
    ) -> FleetOutcome:
        """Have *guest* stay where it is; on its way to nowhere is success, with no steps.

        ``host`` says where it is. Raises Refused (it has gone by then, or it goes elsewhere, as
        its host is drained or fenced).
        """
        why = f"{self._who()} gave it up"
        return self._fleet.give_up(guest, why, timeout=timeout, progress=progress, dry_run=dry_run)

    def cordon(self, host: str, *, dry_run: bool = False) -> FleetOutcome:
        """Let no guest come to *host* any more."""
        return self._fleet.cordon(host, dry_run=dry_run)

    def uncordon(self, host: str, *, dry_run: bool = False) -> FleetOutcome:
        """Let guests come to *host* again, and none go because it was to be drained."""
        return self._fleet.uncordon(host, dry_run=dry_run)

    def drain(
        self,
        host: str,
        *,
        first: Sequence[str] = (),
        at_once: int | None = None,
        timeout: float = 600.0,
        progress: Progress = no_progress,
        dry_run: bool = False,
    ) -> FleetOutcome:
        """Bring all guests of *host* elsewhere, and let none come, until it is uncordoned.

        *first*: guests (names or ids) that go before the others, in this order. *at_once*: so
        many are on their way, or starting, at a time.
        """
        return self._fleet.drain(
            host,
            first=first,
            at_once=at_once,
            timeout=timeout,
            progress=progress,
            dry_run=dry_run,
        )

    def evacuate(
        self,
        host: str,
        fenced: str,
        *,
        first: Sequence[str] = (),
        at_once: int | None = None,
        timeout: float = 600.0,
        progress: Progress = no_progress,
        dry_run: bool = False,
    ) -> FleetOutcome:
        """Have the guests of a dead *host* run elsewhere.

        *fenced*: that it cannot write any more, and who knows that. A word that is not true
        gives its volumes two writers. *first*, *at_once*: as of :meth:`drain`. Raises Busy (it is
        alive); takes half a minute to listen.
        """
        return self._fleet.evacuate(
            host,
            word(fenced),
            by=self._who(),
            first=first,
            at_once=at_once,
            timeout=timeout,
            progress=progress,
            dry_run=dry_run,
        )
