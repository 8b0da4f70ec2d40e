"""Finds what is not as it should be on this host, and says what to do. Changes nothing."""

from __future__ import annotations

import platform
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from moorline.discovery import (
    Diagnosing,
    Discovering,
    Finding,
    Found,
    FuseControl,
    Inventory,
)
from moorline.errors import MoorlineError, Refused
from moorline.journal import Journal
from moorline.model import (
    Attachment,
    Broken,
    Foreign,
    Guest,
    Key,
    Level,
    Seen,
    Unknown,
    Unlinked,
    VolumeId,
)
from moorline.plan import Step, next_step
from moorline.ports import Backends, Hypervisor, Mount
from moorline.reconciler import Reconciler, reason, users
from moorline.records import Records, Trouble, trouble_key


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is around the attachments: for those who look after a host."""

    backends: Backends
    mounts: Callable[[], Sequence[Mount]]
    fuse: FuseControl
    inventory: Inventory | None
    """None: this hypervisor has none."""
    journal: Journal
    check_state: Callable[[], Sequence[Finding]]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What the doctor found; nothing is well."""

    findings: list[Finding]
    facts: dict[str, str]
    """Versions, for people."""

    def to_dict(self) -> dict[str, Any]:
        """The same facts for JSON and YAML; the keys are stable."""
        return asdict(self)


class _Commands(NamedTuple):
    """What a person types to look at a hypervisor, and to stop a guest of it."""

    look: str
    stop: str


_ANY = _Commands("moorline list", "moorline list")
_COMMANDS = {"libvirt": _Commands("virsh list --all", "virsh shutdown {guest}")}


class Doctor:
    """Looks at everything once. Blocks for a look's deadline for each share that hangs.

    *in_hand*: wishes that an agent has just begun with, which are no finding yet.
    """

    def __init__(
        self,
        records: Records,
        reconciler: Reconciler,
        hypervisor: Hypervisor,
        around: Surroundings,
        in_hand: Callable[[], Collection[Key]],
    ) -> None:
        self._records = records
        self._reconciler = reconciler
        self._survey = hypervisor.survey
        self._commands = _COMMANDS.get(hypervisor.kind, _ANY)
        self._around = around
        self._in_hand = in_hand

    def examine(self) -> Diagnosis:
        """See the class. Raises what the store raises."""
        rows = self._records.all()
        found = list(self._around.check_state())
        guests: Sequence[Guest] | None = None
        try:
            guests = self._survey()
        except MoorlineError as e:
            found.append(self._no_hypervisor(e))
        found += self._wishes(rows, guests)
        if guests is not None:
            found += [_unwished_disk(guest, volume) for guest, volume in unwished(rows, guests)]
            found += self._links(rows, guests)
        found += self._hosts(rows)
        once = {(finding.check, finding.subject): finding for finding in reversed(found)}
        return Diagnosis(list(reversed(once.values())), self._facts())

    def about(self, row: Attachment) -> list[Finding]:
        """What keeps one wish from coming true."""
        try:
            guests: Sequence[Guest] | None = self._survey()
        except MoorlineError as e:
            return [self._no_hypervisor(e)]
        return list(self._wishes([row], guests))

    def _wishes(
        self, rows: Sequence[Attachment], guests: Sequence[Guest] | None
    ) -> Iterator[Finding]:
        troubles = self._records.troubles()
        known = {guest.id: guest for guest in guests or ()}
        for row in rows:
            guest = known.get(row.key.guest)
            if guests is not None and guest is None and row.want > Level.ABSENT:
                if not row.hands_off:
                    yield _lost_guest(row)
                continue
            try:
                seen = self._reconciler.observe(row, guest.disks if guest else {})
            except Refused as e:
                yield _refused(row, str(e))
                continue
            except MoorlineError as e:
                yield _behind(row, str(e))
                continue
            yield from self._wish(row, seen, troubles.get(trouble_key(row.key)))

    def _wish(self, row: Attachment, seen: Seen, trouble: Trouble | None) -> Iterator[Finding]:
        step = next_step(row.want, seen)
        if isinstance(seen.link, Unknown) and seen.link.hangs:
            yield hung(row.link, seen.link.reason)
        elif isinstance(seen.link, Foreign):
            yield self._wrong(row.link, seen.link.reason)
        elif step is Step.PARK and isinstance(seen.link, Broken):
            stop = self._commands.stop.format(guest=(*seen.users, row.guest_name)[0])
            yield _dead(row, seen, stop)
        elif step is Step.PARK:
            yield _other_disk(row, seen)
        elif step is not Step.NOTHING and trouble is not None and trouble.error in _REFUSALS:
            yield _refused(row, trouble.message)
        elif step is not Step.NOTHING and row.key not in self._in_hand():
            waits = reason(step, seen) or (trouble.message if trouble else "")
            yield _behind(row, waits or f"the next step is to {step.value}")

    def _wrong(self, link: str, why: str) -> Finding:
        mounted = any(mount.target == link for mount in self._around.mounts())
        return _wrong_mount(link, why) if mounted else polluted(link, why)

    def _links(self, rows: Sequence[Attachment], guests: Sequence[Guest]) -> Iterator[Finding]:
        wished = {row.link for row in rows}
        for _, found in links(self._around.backends):
            if found.link in wished:
                continue  # its wishes tell of it
            if names := users(found.link, guests):
                yield from (_unmanaged(found.link, name) for name in names)
                continue
            match found.ill:
                case Unlinked():
                    yield _leftover(found)
                case Foreign(reason):
                    yield polluted(found.link, reason)
                case Unknown(reason, hangs=True):
                    yield hung(found.link, reason)
                case None | Broken():
                    yield _leaked(found)

    def _hosts(self, rows: Sequence[Attachment]) -> Iterator[Finding]:
        kinds = sorted({row.backend for row in rows})
        places = set()
        for kind in kinds:
            try:
                backend = self._reconciler.backend(kind)
            except MoorlineError:
                continue  # its wishes are told as refused
            if isinstance(backend, Diagnosing):
                yield from backend.diagnose()
            if isinstance(backend, Discovering):
                places |= set(backend.places())
        if self._around.inventory is not None:
            try:
                yield from self._around.inventory.diagnose(sorted(places))
            except MoorlineError as e:
                yield self._no_hypervisor(e)

    def _no_hypervisor(self, error: MoorlineError) -> Finding:
        return Finding(
            "no-hypervisor",
            "hypervisor",
            str(error),
            "what guests use cannot be told, so nothing is disconnected, and nothing attached",
            self._commands.look,
        )

    def _facts(self) -> dict[str, str]:
        facts = {"kernel": platform.release(), "Python": platform.python_version()}
        if self._around.inventory is not None:
            with suppress(MoorlineError):  # told as a finding
                facts |= self._around.inventory.facts()
        return facts


_REFUSALS = ("Refused", "NotFound", "Denied")


def links(backends: Backends) -> Iterator[tuple[Discovering, Found]]:
    """The links on this host, whoever asked for them, each once, and whose they are."""
    told = set()
    for kind in backends:
        try:
            backend = backends[kind]
        except (MoorlineError, ImportError):
            continue  # not usable here, so it made none
        if isinstance(backend, Discovering):
            for found in _told(backend):
                # Back ends can share a directory; an empty place is told by all of them.
                if found.link not in told:
                    told.add(found.link)
                    yield backend, found


def _told(backend: Discovering) -> Sequence[Found]:
    try:
        return backend.links()
    except MoorlineError:
        return []  # what cannot be told is left alone


def strays(
    backends: Backends, rows: Sequence[Attachment], guests: Sequence[Guest]
) -> Iterator[tuple[Discovering, Found]]:
    """Links that no wish and no guest, running or stopped, needs."""
    wished = {row.link for row in rows}
    for backend, found in links(backends):
        if found.link not in wished and not users(found.link, guests):
            yield backend, found


def unwished(
    rows: Sequence[Attachment], guests: Sequence[Guest]
) -> Iterator[tuple[Guest, VolumeId]]:
    """Disks that bear our mark, and that no wish asks for."""
    wished: Mapping[tuple[str, str], Attachment] = {
        (row.key.guest, row.key.volume): row for row in rows
    }
    for guest in guests:
        for volume in guest.disks:
            if (guest.id, volume) not in wished:
                yield guest, volume


def hung(link: str, why: str) -> Finding:
    """A share that does not answer."""
    return Finding(
        "hung-share",
        link,
        why,
        "its volumes cannot be attached or detached, and guests on it may stand still;"
        " other shares are not affected",
        f"moorline abort {link} --dry-run",
    )


def polluted(link: str, why: str) -> Finding:
    """Somebody wrote beneath a mount point."""
    return Finding(
        "written-beneath",
        link,
        why,
        "what was written there lies on the host's own disk, and would vanish under a mount",
        f"mv {link} {link}.found",
    )


def _lost_guest(row: Attachment) -> Finding:
    return Finding(
        "lost-guest",
        row.key.volume,
        f"volume {row.key.volume} is wanted on {row.guest_name}, which is not there any more",
        "the wish cannot come true, and keeps its link",
        f"moorline detach {row.guest_name or row.key.guest} {row.key.volume}",
    )


def _refused(row: Attachment, why: str) -> Finding:
    return Finding(
        "refused-wish",
        row.key.volume,
        f"volume {row.key.volume} on {row.guest_name}: {why}",
        "the wish cannot come true as things are: cure what is said, or take the wish back",
        f"moorline explain {row.key.volume}",
    )


def _behind(row: Attachment, why: str) -> Finding:
    return Finding(
        "not-as-wished",
        row.key.volume,
        f"volume {row.key.volume} is not yet {row.want} on {row.guest_name}: {why}",
        "an agent goes on with it by itself; without one, a command must",
        "moorline sweep",
    )


def _dead(row: Attachment, seen: Seen, stop: str) -> Finding:
    return Finding(
        "dead-share",
        row.link,
        reason(Step.PARK, seen),
        "its client has ended; it is mounted anew as soon as no running guest has it open",
        stop,
    )


def _other_disk(row: Attachment, seen: Seen) -> Finding:
    return Finding(
        "other-disk",
        row.key.volume,
        seen.elsewhere,
        "the guest works on another file than the one that is wished",
        f"moorline detach {row.guest_name} {row.key.volume}",
    )


def _wrong_mount(link: str, why: str) -> Finding:
    return Finding(
        "wrong-mount",
        link,
        why,
        "it is somebody else's, so it is never unmounted for you; the volumes wait for its end",
        f"umount {link}",
    )


def _unwished_disk(guest: Guest, volume: VolumeId) -> Finding:
    return Finding(
        "unwished-disk",
        f"{guest.name}/{volume}",
        f"{guest.name} has a disk that bears the mark of volume {volume}, which nobody wished",
        "nobody keeps its link, and nobody takes it away; Nova marks its disks alike:"
        " `moorline adopt` takes such over",
        f"moorline detach {guest.name} {volume}",
    )


def _leaked(found: Found) -> Finding:
    return Finding(
        "leaked-link",
        found.link,
        f"{found.link} is connected, and no wish and no guest needs it",
        "it keeps a client running, and the share busy",
        "moorline repair",
    )


def _leftover(found: Found) -> Finding:
    return Finding(
        "leftover",
        found.link,
        f"the place of a link, {found.link}, is left, with nothing connected there",
        "it does no harm, but whoever looks may take it for a volume's",
        "moorline repair",
    )


def _unmanaged(link: str, guest: str) -> Finding:
    return Finding(
        "unmanaged-disk",
        f"{guest} on {link}",
        f"{guest} has a disk on {link}, which nobody wished",
        "the link is left alone for the guest's sake, but nobody mounts it after a reboot",
        f"moorline adopt {guest}",
    )
