"""doctor: finds what is wrong on this host, and says what to do. Changes nothing."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property

from moorline.care import finding_texts
from moorline.care.environment import Environment
from moorline.care.refusal import is_refusal, refused
from moorline.care.strays import links, released_disks
from moorline.core.backoff import Pending
from moorline.core.link_usage import unknown_users, users
from moorline.core.plan import Step, next_step
from moorline.core.reasons import reason
from moorline.core.reconciler import Reconciler
from moorline.core.records import Records, trouble_key
from moorline.core.survey import Survey
from moorline.errors import MoorlineError, Refused
from moorline.model import (
    NO_DISK,
    Attachment,
    Broken,
    Client,
    Foreign,
    Guest,
    Key,
    Level,
    Link,
    Seen,
    Unknown,
    Unlinked,
    VolumeId,
)
from moorline.ports import Hypervisor, Mount
from moorline.ports.care_results import Diagnosis
from moorline.ports.inspection import (
    Diagnosing,
    Discovering,
    Finding,
    OpenImages,
)
from moorline.ports.results import Trouble

_CONSEQUENCES = ("refused-attachment", "not-as-wanted")
"""What may be told of an attachment because its guest is paused."""


class _Look:
    """What one examination saw; each thing is looked at once."""

    def __init__(self, survey: Survey, mounts: Callable[[], Sequence[Mount]]) -> None:
        self.survey = survey
        self._mounts = mounts
        self.guests: Sequence[Guest] | None = None
        """None: the guests cannot be looked at."""
        self.errors: list[MoorlineError] = []
        """Why the guests cannot be looked at."""
        self.paused: Collection[str] = ()
        """The names of those that an error has paused: they let no disk go."""
        self.renewing: set[str] = set()
        """The names of those of them that go on when they have their disks anew."""
        self.ending: dict[str, str] = {}
        """What ends those of them that never go on, by their names."""
        try:
            self.guests = survey.guests
        except MoorlineError as e:
            self.errors.append(e)

    @cached_property
    def mounts(self) -> Sequence[Mount]:
        return self._mounts()


class Doctor:
    """Looks at everything once. Blocks for a look's deadline for each share that hangs.

    *pending*: what an agent works on; an attachment that it has just begun with is no finding.
    """

    def __init__(
        self,
        records: Records,
        reconciler: Reconciler,
        hypervisor: Hypervisor,
        environment: Environment,
        pending: Callable[[], Sequence[Pending]],
    ) -> None:
        self._records = records
        self._reconciler = reconciler
        self._images = hypervisor if isinstance(hypervisor, OpenImages) else None
        self._look_command = hypervisor.look_command
        self._stop_command = hypervisor.stop_command
        self._environment = environment
        self._pending = pending

    def examine(self) -> Diagnosis:
        """All findings. Raises what the store raises."""
        look = _Look(self._reconciler.survey(), self._environment.mounts)
        rows, guests = look.survey.rows, look.guests
        found = list(self._environment.check_state())
        found += map(self._no_hypervisor, look.errors)
        hosts = list(self._hosts(rows, look.survey))
        look.paused = _paused(hosts)
        found += self._attachments(rows, look, self._records.troubles())
        if guests is not None:
            found += [finding_texts.unreadable_guest(guest) for guest in guests if guest.unreadable]
            released = self._records.released()
            found += [self._released(*each) for each in released_disks(rows, guests, released)]
            found += self._links(rows, guests, look)
            wanted = {(row.key.guest, row.key.volume) for row in rows}
            pairs = self._environment.shared_files(guests)
            found += [finding_texts.shared_file(*pair, wanted) for pair in pairs]
        found += self._pauses_of(hosts, look)
        # Volumes on the same link have the same finding.
        once = {(finding.check, finding.subject): finding for finding in reversed(found)}
        return Diagnosis(list(reversed(once.values())), self._facts())

    def about(self, row: Attachment, survey: Survey) -> list[Finding]:
        """The findings that keep *row* from becoming as wanted, by *survey*."""
        look = _Look(survey, self._environment.mounts)
        trouble = self._records.trouble(row.key)
        paused = list(self._pauses(row))
        look.paused = _paused(paused)
        found = list(self._attachments([row], look, {trouble_key(row.key): trouble}))
        if (guests := look.guests) is None:
            return [*found, *map(self._no_hypervisor, look.errors)]
        # An attachment that is to go waits for guests that may need its link.
        waits = [guest for guest in guests if guest.unreadable and row.want is Level.ABSENT]
        own = [guest for guest in guests if guest.unreadable and guest.id == row.key.guest]
        unreadable = map(finding_texts.unreadable_guest, own or (waits if found else ()))
        causes = [each for each in found if each.check not in _CONSEQUENCES]
        paused = self._pauses_of(paused, look)
        return [*unreadable, *causes, *paused, *(each for each in found if each not in causes)]

    @staticmethod
    def _pauses_of(found: Sequence[Finding], look: _Look) -> list[Finding]:
        """*found*, where only guests are to be resumed that would go on by that."""

        def told(paused: Finding) -> Finding:
            if stop := look.ending.get(paused.subject):
                return finding_texts.lost_pause(paused, stop)
            if paused.subject in look.renewing:
                return finding_texts.renewable_guest(paused)
            return paused

        return [told(each) if each.check == "paused-guest" else each for each in found]

    def _pauses(self, row: Attachment) -> Iterator[Finding]:
        """Findings that keep the guest of an attachment paused."""
        if self._environment.inventory is not None:
            with suppress(MoorlineError):  # is a finding of the attachment
                found = self._environment.inventory.diagnose([])
                yield from (each for each in found if each.subject == row.guest_name)

    def _attachments(
        self, rows: Sequence[Attachment], look: _Look, troubles: Mapping[str, Trouble | None]
    ) -> Iterator[Finding]:
        """What is wrong with attachments; with their links alone if guests cannot be looked at."""
        known = {guest.id: guest for guest in look.guests or ()}
        names = {guest.name for guest in known.values()}
        for row in rows:
            guest = known.get(row.key.guest)
            try:
                if look.guests is None or (guest is not None and guest.unreadable):
                    yield from self._ill(row.link, look.survey.links.inspect(row), look)
                elif guest is None and row.want > Level.ABSENT and not row.hands_off:
                    yield finding_texts.lost_guest(row, made_anew=row.guest_name in names)
                else:
                    trouble = troubles.get(trouble_key(row.key))
                    yield from self._stale(row, guest, trouble, look)
                    seen = self._reconciler.observe(row, look.survey)
                    yield from self._attachment(row, seen, trouble, look, guest)
            except Refused as e:
                yield finding_texts.refused_attachment(row, str(e))
            except MoorlineError as e:
                yield finding_texts.not_as_wanted(row, str(e))

    def _in_hand(self) -> set[Key]:
        return {each.key for each in self._pending() if not each.tries}

    def _attachment(
        self,
        row: Attachment,
        seen: Seen,
        trouble: Trouble | None,
        look: _Look,
        guest: Guest | None,
    ) -> Iterator[Finding]:
        step = next_step(row.want, seen)
        if ill := list(self._ill(row.link, seen.link, look)):
            yield from ill
        elif broken := list(self._broken(row, seen, step, look)):
            yield from broken
        elif seen.snapshot is not False:
            yield finding_texts.snapshot(row, seen)
        elif seen.disk.stale or seen.disk.replaced:
            return  # is a finding already
        elif step is Step.PARK:
            yield finding_texts.other_disk(row, seen)
        elif seen.disk != NO_DISK and (why := self._replaced(row.key.volume, guest)):
            yield finding_texts.replaced_image(row.guest_name, row.key.volume, why)
        elif step is not Step.NOTHING and trouble is not None and is_refusal(trouble):
            yield refused(row, step, seen, trouble, self._reconciler.files.verify)
        elif step is not Step.NOTHING and row.key not in self._in_hand():
            waits = reason(step, seen) or (trouble.message if trouble else "")
            yield finding_texts.not_as_wanted(row, waits or f"the next step is to {step.value}")

    def _broken(self, row: Attachment, seen: Seen, step: Step, look: _Look) -> Iterator[Finding]:
        match seen.link:
            case Broken(why, Client.GONE, presumed=False) if self._goes_on(row, look):
                look.renewing.add(row.guest_name)
                yield finding_texts.renewable_share(row, why)
            case Broken(why, client=Client.GONE):
                lost = seen.disk != NO_DISK and row.guest_name in look.paused
                stop = self._stop(row.guest_name, look) if lost else ""
                yield finding_texts.dead_share(row, why, stop)
            case Broken(client=Client.CUT_OFF) if step is Step.WAIT:
                yield finding_texts.cut_off_share(row, reason(step, seen))
            case Broken() if step is Step.WAIT:
                yield finding_texts.failing_share(row, reason(step, seen))
            case Broken() if step is Step.PARK:
                own = not row.hands_off and set(seen.users) <= {row.guest_name}
                name = (*seen.users, row.guest_name)[0]
                stop = "" if own and name not in look.paused else self._stop(name, look)
                yield finding_texts.broken_link(row, reason(step, seen), stop)

    def _goes_on(self, row: Attachment, look: _Look) -> bool:
        return row.guest_name in look.paused and self._reconciler.renewals.is_allowed(row)

    def _is_renewed(self, row: Attachment, look: _Look) -> bool:
        """Whether a lost disk is to be given anew: its guest stands still for it, or will."""
        renewals = self._reconciler.renewals
        if not renewals.is_recorded(row, look.survey):
            return False
        try:
            if row.guest_name not in look.paused:
                renewals.foresee(row)
        except Refused:  # its system has been told of errors, or will be
            return False
        return True

    def _released(self, guest: Guest, volume: VolumeId, path: str) -> Finding:
        """Of a disk that was released as *path*: detach refuses one that is another file now."""
        if (other := finding_texts.released_as_other(guest, volume, path)) is not None:
            return other
        try:
            why = guest.disks[volume].replaced or self._replaced(volume, guest)
        except MoorlineError:
            why = ""  # the guest went, or cannot be looked at: detach would say so, too
        if why:
            return finding_texts.replaced_image(guest.name, volume, why)
        return finding_texts.unwanted_disk(guest, volume)

    def _replaced(self, volume: VolumeId, guest: Guest | None) -> str:
        """Why the file that a running guest has open is not the volume; ''.

        That costs a look at each guest, so stopped guests, which have nothing open, are left out.
        """
        if self._images is None or guest is None or not guest.running:
            return ""
        return self._images.replaced(guest, volume)

    def _stale(
        self, row: Attachment, guest: Guest | None, trouble: Trouble | None, look: _Look
    ) -> Iterator[Finding]:
        """Disks that a running guest has open and that are gone, whoever plugged them."""
        disk = guest.disks.get(row.key.volume) if guest else None
        lost = disk is not None and (disk.stale or disk.replaced)
        if lost and self._is_renewed(row, look):
            look.renewing.add(row.guest_name)
            yield finding_texts.not_renewed(row, trouble.message if trouble else "")
        elif disk is not None and disk.stale:
            stops = row.hands_off or row.guest_name in look.paused
            stop = self._stop(row.guest_name, look) if stops else ""
            yield finding_texts.stale_disk(row, disk.stale, stop)
        elif disk is not None and disk.replaced:
            yield finding_texts.replaced_image(row.guest_name, row.key.volume, disk.replaced)

    def _stop(self, guest: str, look: _Look) -> str:
        if guest in look.paused:  # it hears nothing, and only libvirt tells of such
            stop = finding_texts.command("virsh", "destroy", guest)
            look.ending[guest] = stop
            return stop
        return self._stop_command.format(shlex.quote(guest))

    def _ill(self, link: str, ill: Link | None, look: _Look) -> Iterator[Finding]:
        """Findings that no step of ours can mend."""
        mount = next((m for m in look.mounts if m.target == link), None)
        match ill:
            case Unknown(reason, hangs=True):
                fuse = mount is not None and mount.fstype.startswith("fuse")
                yield finding_texts.hung_share(link, reason, fuse=fuse)
            case Foreign(reason) if mount is not None:
                yield finding_texts.wrong_mount(link, reason)
            case Foreign(reason) if link.startswith("/dev/"):
                yield finding_texts.wrong_device(link, reason)
            case Foreign(reason):
                yield finding_texts.written_beneath(link, reason)

    def _links(
        self, rows: Sequence[Attachment], guests: Sequence[Guest], look: _Look
    ) -> Iterator[Finding]:
        wanted = {row.link for row in rows}
        unsure = unknown_users(guests)  # unreadable guests are findings already
        for _, found in links(look.survey.links.backends):
            if found.link in wanted:
                continue  # is told with its attachments
            if names := users(found.link, guests):
                yield from (finding_texts.unmanaged_disk(found.link, name) for name in names)
                continue
            match found.ill:
                case None | Broken() | Unlinked() if unsure:
                    continue
                case Unlinked() if found.elsewhere:
                    yield finding_texts.mounted_elsewhere(found)
                case Unlinked():
                    yield finding_texts.leftover(found)
                case None | Broken():
                    yield finding_texts.leaked_link(found)
                case ill:
                    yield from self._ill(found.link, ill, look)

    def _hosts(self, rows: Sequence[Attachment], survey: Survey) -> Iterator[Finding]:
        kinds = sorted({row.backend for row in rows})
        places = set()
        for kind in kinds:
            try:
                backend = survey.links.backend(kind)
            except MoorlineError:
                continue  # its attachments are findings (refused)
            if isinstance(backend, Diagnosing):
                yield from backend.diagnose()
            if isinstance(backend, Discovering):
                places |= set(backend.places())
        if self._environment.inventory is not None:
            try:
                yield from self._environment.inventory.diagnose(sorted(places))
            except MoorlineError as e:
                yield self._no_hypervisor(e)

    def _no_hypervisor(self, error: MoorlineError) -> Finding:
        return Finding(
            "no-hypervisor",
            "hypervisor",
            str(error),
            "what guests use cannot be told, so nothing is disconnected, and nothing attached",
            self._look_command,
        )

    def _facts(self) -> dict[str, str]:
        facts = {"kernel": platform.release(), "Python": platform.python_version()}
        if self._environment.inventory is not None:
            with suppress(MoorlineError):  # is a finding of its own
                facts |= self._environment.inventory.facts()
        return facts


def _paused(findings: Iterable[Finding]) -> frozenset[str]:
    return frozenset(each.subject for each in findings if each.check == "paused-guest")
