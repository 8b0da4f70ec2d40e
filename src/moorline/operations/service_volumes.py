"""attach and detach of volumes that a volume service gives by name: ``cinder:VOLUME``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from moorline.core.connection_renewal import ConnectionRenewer
from moorline.core.driver import done_before, nothing_recorded
from moorline.core.name_lookup import guest_called
from moorline.core.records import Records
from moorline.core.reservations import Reservations
from moorline.core.retry_loop import keeping_timeout
from moorline.deadline import Deadline
from moorline.disk_options import AS_IT_COMES
from moorline.errors import MoorlineError, NotFound, Refused, told_about
from moorline.model import (
    DiskOptions,
    Format,
    GuestName,
    Key,
    Level,
    VolumeId,
    as_uuid,
    volume_id,
)
from moorline.operations.attach import Attacher
from moorline.ports import Hypervisor
from moorline.ports.progress import Progress, no_progress
from moorline.ports.results import Outcome, View
from moorline.ports.volume_service import SCHEME, is_named

_SERVICE_SECONDS = 20.0
"""How long the service is asked again if it does not answer, and the caller says nothing."""
_NO_CONNECTION = "the storage and the file: which those are says Cinder, once it is asked for them"


class ServiceVolumes:
    """attach, detach, sweep of :class:`moorline.ports.api.Attachments`; all else is *attacher*'s.

    What is attached otherwise goes through untouched, and no service is asked.
    """

    def __init__(
        self,
        attacher: Attacher,
        records: Records,
        hypervisor: Hypervisor,
        reservations: Reservations,
        renewer: ConnectionRenewer,
    ) -> None:
        self._attacher = attacher
        self._records = records
        self._hypervisor = hypervisor
        self._reservations = reservations
        self._renewer = renewer

    @keeping_timeout
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
        attach = partial(
            self._attacher.attach,
            format=format,
            level=level,
            options=options,
            hands_off=hands_off,
            vouch=vouch,
            label=label,
            timeout=timeout,
            wait=wait,
            progress=progress,
            dry_run=dry_run,
        )
        if not is_named(connection):
            return attach(guest, connection, volume=volume)
        _refuse_what_does_not_fit(format, hands_off=hands_off)
        deadline = Deadline(_SERVICE_SECONDS if timeout is None else timeout)
        with nothing_recorded():
            its = guest_called(guest, self._hypervisor)
            id = self._reservations.service().find(str(connection).removeprefix(SCHEME))
        if volume not in (None, id):
            raise Refused(f"{connection} is volume {id}, not {volume}")
        key = self._reservations.key(id, its)
        if dry_run:
            with told_about(id, its.name), nothing_recorded():
                return self._foreseen(key, its, level, attach)
        with told_about(id, its.name), self._reservations.hold(key):
            try:
                with nothing_recorded():
                    progress(f"reserving volume {id}")
                    readonly = bool(options.readonly)
                    given = self._reservations.connection(id, its, deadline, readonly=readonly)
                outcome = attach(its.id, given, volume=id)
            except MoorlineError:
                with suppress(MoorlineError):  # a sweep does it, and doctor tells
                    self._reservations.settle(key)
                raise
            with done_before(f"volume {id} is attached to {its.name}"):
                self._reservations.settle_by(key, deadline)
        return outcome

    @keeping_timeout
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
        detach = partial(
            self._attacher.detach,
            guest,
            hands_off=hands_off,
            timeout=timeout,
            wait=wait,
            progress=progress,
            dry_run=dry_run,
        )
        if is_named(volume):
            volume = self._id(volume.removeprefix(SCHEME))
        if hands_off:
            return detach(volume)
        before = self._of(guest)
        if dry_run:
            return self._release_foreseen(volume, before, detach)
        deadline = Deadline(timeout)
        try:
            outcome = detach(volume)
        except NotFound:
            if not any(key.volume == volume for key in before):
                raise
            outcome = None
        for key in before:
            if self._records.get(key) is None:
                with (
                    told_about(key.volume, guest),
                    done_before(f"volume {key.volume} is no disk of {guest}"),
                    self._reservations.hold(key),
                ):
                    self._reservations.settle_by(key, deadline)
        return outcome

    def sweep(self, progress: Progress = no_progress, *, dry_run: bool = False) -> Sequence[View]:
        left = self._attacher.sweep(progress, dry_run=dry_run)
        if not dry_run:
            keys = self._reservations.keys()
            if self._renewer.renew_all(
                keys, lambda key, why: progress(f"no new connection of volume {key.volume}: {why}")
            ):
                left = self._attacher.sweep(progress)
            for key, why in self._reservations.settle_all(keys):
                progress(f"Cinder is not in step for volume {key.volume}: {why}")
        return left

    def _id(self, named: str) -> VolumeId:
        """Whole, as it is recorded here; the service may have that volume no more, or be away."""
        with nothing_recorded():
            return volume_id(as_uuid(named)) or self._reservations.service().find(named)

    def _foreseen(
        self, key: Key, guest: GuestName, level: Level, attach: Callable[..., Outcome]
    ) -> Outcome:
        """What an attach of *key* would come to, as far as looks tell: nothing is asked for."""
        seen = self._reservations.foresee(key, guest)
        last = [] if seen and seen.complete else ["complete"]
        if seen and seen.connection:
            outcome = attach(guest.id, seen.connection.reveal(), volume=key.volume)
            return replace(outcome, steps=[*outcome.steps, *last])
        steps = [] if seen else ["reserve"]
        steps += ["connect", "attach"] if level is Level.ATTACHED else ["connect"]
        return Outcome(
            [*steps, *last], not_seen(key, guest.name, level, steps[0]), unseen=_NO_CONNECTION
        )

    def _release_foreseen(
        self, volume: str, before: Sequence[Key], detach: Callable[[str], Outcome | None]
    ) -> Outcome | None:
        outcome = None
        try:
            outcome = detach(volume)
        except NotFound:
            if not any(key.volume == volume for key in before):
                raise
        gone = outcome.view.volume if outcome else volume
        for key in before:
            if key.volume == gone and outcome:
                return replace(outcome, steps=[*outcome.steps, "release"])
            if key.volume == gone and self._records.get(key) is None:
                name = self._records.reservations()[key].guest_name
                return Outcome(["release"], not_seen(key, name, Level.ABSENT, "release"))
        return outcome

    def _of(self, guest: str) -> list[Key]:
        """The reservations for *guest*, by its id or the name that it had or has."""
        noted = self._records.reservations()
        if not noted:
            return []
        names = {guest}
        with suppress(MoorlineError):
            names |= set(guest_called(guest, self._hypervisor))
        return [
            key for key, each in noted.items() if names & set(GuestName(key.guest, each.guest_name))
        ]


def not_seen(key: Key, guest: str, wanted: Level, due: str) -> View:
    """Describe what has no connection on record, of which nothing can be looked at."""
    return View(
        volume=key.volume,
        guest=guest,
        guest_id=key.guest,
        host=key.host,
        backend="",
        link="",
        wanted=str(wanted),
        seen="unknown",
        device="",
        since=0.0,
        next=due,
    )


def _refuse_what_does_not_fit(format: Format | None, *, hands_off: bool) -> None:
    if format:
        raise Refused("the format of a volume of Cinder's is what Cinder says: no --format")
    if hands_off:
        raise Refused("who plugs the disk himself has the connection from Cinder himself")
