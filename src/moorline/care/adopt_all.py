"""adopt --all and release --all: every disk of a guest, or of all, one after the other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from moorline.care.adopt import Adopter
from moorline.care.connection_offers import Offer, chosen
from moorline.care.connection_rows import connection_rows
from moorline.care.environment import Environment
from moorline.core.admission import AcceptedConnection, Admission
from moorline.core.driver import nothing_recorded
from moorline.core.name_lookup import guest_called
from moorline.core.reconciler import Reconciler
from moorline.core.records import Records
from moorline.errors import MoorlineError, Refused
from moorline.model import Attachment, Guest, ImageFile, Level
from moorline.ports import Hypervisor
from moorline.ports.care_results import Adoption, AdoptionOfAll, DiskOutcome
from moorline.ports.inspection import GuestDisk
from moorline.ports.mount import MountsByPath
from moorline.ports.recognising import Locating, Recognised, Recognising, Setting

_LOCAL = "local"
_NOVAS = ("Nova plugs it", "--hands-off leaves that to Nova; name the guest where Nova is no more")
_NOT_NOVAS = ("Nova does not plug it", "leave --hands-off out, or name the guest")
_UNKNOWN = "it lies on no share that a back end knows"


@dataclass(frozen=True, slots=True)
class _Asked:
    """How disks are to be adopted, and what is known of their connections."""

    offers: Sequence[Offer]
    local: bool
    hands_off: bool
    dry_run: bool
    nova_apart: bool
    """No guest was named: those of Nova are meant where it goes on plugging, else the others."""


class BulkAdopter:
    """adopt_all and release_all of :class:`moorline.ports.api.Maintenance`."""

    def __init__(
        self,
        adopter: Adopter,
        records: Records,
        reconciler: Reconciler,
        hypervisor: Hypervisor,
        admission: Admission,
        environment: Environment,
    ) -> None:
        self._adopter = adopter
        self._records = records
        self._reconciler = reconciler
        self._hypervisor = hypervisor
        self._admission = admission
        self._environment = environment

    def adopt_all(
        self,
        guest: str | None = None,
        *,
        connections: Sequence[Mapping[str, Any]] = (),
        local: bool = False,
        hands_off: bool = False,
        dry_run: bool = False,
    ) -> AdoptionOfAll:
        if self._environment.inventory is None:
            raise Refused(f"disks of {self._hypervisor.kind} guests cannot be adopted")
        offers = [Offer(row, self._admission) for row in connection_rows(connections)]
        asked = _Asked(offers, local, hands_off, dry_run, nova_apart=guest is None)
        with nothing_recorded():
            one = None if guest is None else guest_called(guest, self._hypervisor).id
            guests = self._hypervisor.survey()
        look = _Look(
            guests,
            MountsByPath(self._environment.mounts()),
            {kind: usable for kind in self._environment.backends if (usable := self._usable(kind))},
            self._wanted(),
        )
        disks: list[DiskOutcome] = []
        settings: dict[str, Setting] = {}
        for each in look.guests:
            if one in (None, each.id):
                for outcome, setting in self._guest(each, look, asked):
                    disks.append(_merged(settings, setting, outcome) if setting else outcome)
        return AdoptionOfAll(disks, [_line(setting) for setting in settings.values()])

    def release_all(self, guest: str | None = None, *, dry_run: bool = False) -> list[DiskOutcome]:
        with nothing_recorded():
            one = None if guest is None else guest_called(guest, self._hypervisor).id
        rows = [row for row in self._records.all() if one in (None, row.key.guest)]
        return [self._release(row, dry_run=dry_run) for row in rows]

    # --- one guest, one disk ---

    def _guest(
        self, guest: Guest, look: _Look, asked: _Asked
    ) -> Iterator[tuple[DiskOutcome, Setting | None]]:
        blank = DiskOutcome(guest.name, guest.id)
        if guest.unreadable:
            yield _told(blank, "failed", guest.unreadable, guest.remedy), None
            return
        try:
            assert self._environment.inventory is not None, "adopt_all asked before"
            disks = self._environment.inventory.disks(guest.id)
        except MoorlineError as e:
            yield _failed(blank, e), None
            return
        offers = [offer for offer in asked.offers if offer.row.guest in ("", guest.id)]
        used: set[int] = set()
        for disk in disks:
            at = replace(blank, device=disk.device, path=disk.path, volume=disk.mark)
            try:
                yield self._disk(at, guest, disk, look, asked, offers, used)
            except MoorlineError as e:
                yield _failed(at, e), None
        for offer in offers:
            row = offer.row
            if row.guest and id(offer) not in used:
                why = "there is a connection for it, and the guest has no such disk"
                yield _told(replace(blank, volume=row.volume), "left", why), None

    def _disk(
        self,
        at: DiskOutcome,
        guest: Guest,
        disk: GuestDisk,
        look: _Look,
        asked: _Asked,
        offers: Sequence[Offer],
        used: set[int],
    ) -> tuple[DiskOutcome, Setting | None]:
        """What comes of one disk, and the setting that it lacks. Raises as adopt."""
        fitting = [offer for offer in offers if offer.is_of(disk)]
        used |= {id(offer) for offer in fitting}
        row = self._kept(guest, disk)
        if row is not None and (row.hands_off or not row.link_only):
            return self._keeps(at, row), None
        if asked.nova_apart and disk.nova != asked.hands_off:
            return _told(at, "left", *(_NOVAS if disk.nova else _NOT_NOVAS)), None
        recognised, refusal = self._recognise(disk, look, asked)
        storage = self._accepted(recognised)
        if row is not None:  # its link is wanted already, and not the disk
            connection, volume = row.connection.reveal(), str(row.key.volume)
        elif offer := chosen(fitting or [o for o in offers if o.has(storage, disk)]):
            used.add(id(offer))
            connection, volume = offer.row.connection, offer.row.volume
            if setting := self._setting(offer, disk, look, asked) or _unparsable(offer, recognised):
                return _lacks(at, offer.accepted, setting), setting
        elif refusal is not None:
            raise refusal
        elif recognised is None:
            return _told(at, "left", _UNKNOWN, _hint(disk, asked)), None
        elif recognised.setting:
            return _lacks(at, storage, recognised.setting), recognised.setting
        else:
            connection, volume = recognised.connection, ""
            self._demand_plain(storage)
        return self._adopt(at, disk, look, asked, connection, volume), None

    def _adopt(
        self,
        at: DiskOutcome,
        disk: GuestDisk,
        look: _Look,
        asked: _Asked,
        connection: Mapping[str, Any],
        volume: str,
    ) -> DiskOutcome:
        others = look.others(at.guest_id, disk.path)
        if others and not disk.shared:
            raise Refused(
                f"{disk.path} is named by {', '.join(others)} as well, and is not shared",
                hint="moorline doctor",
            )

        def adopt(*, dry_run: bool) -> Adoption:
            return self._adopter.adopt(
                at.guest_id,
                connection,
                volume=volume or None,
                target=disk.device,
                hands_off=asked.hands_off,
                dry_run=dry_run,
            )

        plan = adopt(dry_run=True)
        if plan.view.seen == "partial":
            raise Refused(
                f"{disk.device} is only in the running guest, or only in its definition, and the"
                " other half would be plugged",
                hint="moorline adopt with its connection does so",
            )
        done = plan if asked.dry_run else adopt(dry_run=False)
        at = replace(at, volume=done.view.volume, backend=done.view.backend, steps=done.steps)
        return _told(at, "due" if asked.dry_run else "adopted")

    def _release(self, row: Attachment, *, dry_run: bool) -> DiskOutcome:
        at = DiskOutcome(row.guest_name, row.key.guest, volume=row.key.volume, backend=row.backend)
        try:
            done = self._adopter.release(row.key.guest, row.key.volume, dry_run=dry_run)
        except MoorlineError as e:
            return _failed(at, e)
        source = done.view.source or {}
        at = replace(at, device=done.view.device, path=str(source.get("path", "")))
        return _told(replace(at, steps=done.steps), "due" if dry_run else "released")

    # --- how ---

    def _kept(self, guest: Guest, disk: GuestDisk) -> Attachment | None:
        """The attachment that has the disk already, by its mark or by where its link is."""
        for row in self._records.of(guest.id):
            if row.key.volume == disk.mark:
                return row
            try:
                _, parsed = self._reconciler.read(row)
            except Refused:
                continue  # its connection does not fit the configuration any more
            if disk.path == (f"{row.link}/{parsed.name}" if parsed.name else row.link):
                return row
        return None

    def _keeps(self, at: DiskOutcome, row: Attachment) -> DiskOutcome:
        at = replace(at, volume=row.key.volume, backend=row.backend)
        if row.want is Level.ABSENT:
            raise Refused(
                f"volume {row.key.volume} is on its way out",
                hint=f"moorline explain {row.key.volume}",
            )
        return _told(at, "kept")

    def _wanted(self) -> Mapping[str, Sequence[Any]]:
        found: defaultdict[str, list[Any]] = defaultdict(list)
        for row in self._records.all():
            with suppress(Refused):  # its connection does not fit the configuration any more
                found[row.backend].append(self._reconciler.read(row)[1])
        return found

    def _usable(self, kind: str) -> object | None:
        try:
            return self._environment.backends[kind]
        except MoorlineError:
            return None  # its options are wrong, or what it needs is not installed

    def _recognise(
        self, disk: GuestDisk, look: _Look, asked: _Asked
    ) -> tuple[Recognised | None, Refused | None]:
        """The disk's connection by its place; else why the back end of its kind cannot tell it."""
        mount = look.mounts.covering(disk.path)
        kinds = [kind for kind in look.backends if kind != _LOCAL]
        for kind in [*kinds, *([_LOCAL] if asked.local else [])]:
            backend = look.backends.get(kind)
            if not isinstance(backend, Recognising):
                continue
            try:
                known = look.wanted.get(kind, ())
                recognised = backend.recognise(disk, mount, ours=asked.hands_off, known=known)
            except Refused as e:
                return None, e
            if recognised is not None:
                return recognised, None
        return None, None

    def _accepted(self, recognised: Recognised | None) -> AcceptedConnection | None:
        if recognised is None:
            return None
        try:
            return self._admission.admit(recognised.connection, None)
        except Refused:
            if recognised.setting:
                return None  # it fits once that is configured
            raise

    def _setting(self, offer: Offer, disk: GuestDisk, look: _Look, asked: _Asked) -> Setting | None:
        mount = look.mounts.covering(disk.path)
        accepted = offer.accepted
        if accepted is None or mount is None:
            return None
        backend = look.backends.get(accepted.backend)
        if not isinstance(backend, Locating):
            return None
        parsed = self._reconciler.backend(accepted.backend).parse(accepted.connection)
        return backend.setting(parsed, disk, mount, ours=asked.hands_off)

    def _demand_plain(self, accepted: AcceptedConnection | None) -> None:
        """Raise Refused for an image above others: which of them is the volume, nobody said."""
        if accepted is None:
            return
        backend = self._reconciler.backend(accepted.backend)
        source = backend.verify(backend.parse(accepted.connection))
        if isinstance(source, ImageFile) and source.backing:
            raise Refused(
                f"{source.path} is an image above {source.backing[0].path}: a snapshot, or a copy"
                " of a template, and which of them is the volume cannot be told",
                hint="give the disk's connection: --connections",
            )


class _Look:
    """What one call saw of the host."""

    def __init__(
        self,
        guests: Sequence[Guest],
        mounts: MountsByPath,
        backends: Mapping[str, object],
        wanted: Mapping[str, Sequence[Any]],
    ) -> None:
        """*wanted*: the parsed connections of all attachments, by the kind of their back end."""
        self.guests = guests
        self.wanted = wanted
        self.mounts = mounts
        self.backends = backends

    def others(self, guest: str, path: str) -> Sequence[str]:
        """The names of other guests that name *path*."""
        return [
            each.name
            for each in self.guests
            if each.id != guest and path in {*each.paths, *(use.path for use in each.uses)}
        ]


def _unparsable(offer: Offer, recognised: Recognised | None) -> Setting | None:
    """The setting without which the offered connection is refused."""
    return recognised.setting if recognised and offer.accepted is None else None


def _hint(disk: GuestDisk, asked: _Asked) -> str:
    if not disk.path or asked.local:
        return "give its connection: --connections"
    return "--local takes over local files and devices; or give its connection: --connections"


def _lacks(at: DiskOutcome, accepted: AcceptedConnection | None, setting: Setting) -> DiskOutcome:
    if accepted is not None:
        at = replace(at, backend=accepted.backend, volume=accepted.volume or at.volume)
    return _told(at, "unset", f"{setting.option} must have {setting.entries[-1]}")


def _merged(settings: dict[str, Setting], setting: Setting, at: DiskOutcome) -> DiskOutcome:
    """Add a setting to those that are told, unless it contradicts one: two places of a share."""
    known = settings.get(setting.option, Setting(setting.option, ()))
    entries = dict.fromkeys([*known.entries, *setting.entries])
    names = [entry.rpartition("=/")[0] or entry for entry in entries]
    if len(set(names)) < len(names):
        why = f"{setting.entries[-1]} would be a second place of a share in {setting.option}"
        return _told(at, "refused", why, "use one of the two mounts alone")
    settings[setting.option] = Setting(setting.option, tuple(entries))
    return at


def _line(setting: Setting) -> str:
    """As it is written into a file: oslo.config reads a name into a single $ (an SMB share's)."""
    return f"{setting.option} = {setting.value.replace('$', '$$')}"


def _told(at: DiskOutcome, outcome: str, why: str = "", hint: str = "") -> DiskOutcome:
    return replace(at, outcome=outcome, why=why, hint=hint)


def _failed(at: DiskOutcome, error: MoorlineError) -> DiskOutcome:
    return _told(at, error.kind, error.message, error.hint)
