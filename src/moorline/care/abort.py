"""abort: ends the connection of a FUSE share that hangs, and gives guests their disks anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from moorline.care.environment import Environment
from moorline.care.strays import links
from moorline.core.driver import Driver
from moorline.core.link_usage import unknown_users, users
from moorline.core.reconciler import Reconciler
from moorline.core.records import Records
from moorline.core.validation import check_reason
from moorline.deadline import Deadline
from moorline.errors import MoorlineError, NotFound, NotOurs, Refused
from moorline.model import Attachment, Broken, Client, Guest, Key, Level, Link, LinkName, Unknown
from moorline.ports import Mount
from moorline.ports.care_results import Repair

_RENEWAL_TIMEOUT_SECONDS = 25.0
"""Seconds to give all disks of a share anew: one that hung is asked again within 10 s."""


class Aborter:
    """abort of :class:`moorline.ports.api.Maintenance`. Unknown means in use."""

    def __init__(
        self,
        records: Records,
        reconciler: Reconciler,
        survey: Callable[[], Sequence[Guest]],
        driver: Driver,
        environment: Environment,
    ) -> None:
        self._records = records
        self._reconciler = reconciler
        self._survey = survey
        self._driver = driver
        self._environment = environment

    def abort(
        self,
        mount_point: str,
        *,
        force: bool = False,
        renew: bool = False,
        vouch: str = "",
        dry_run: bool = False,
    ) -> Repair:
        if vouch:
            check_reason(vouch)
        mount = self._mount(mount_point)
        if not mount.fstype.startswith("fuse"):
            raise Refused(f"{mount_point} is {mount.fstype}, and only FUSE can be aborted")
        self._demand_hung(mount_point, renew=renew)
        due = Repair("abort", mount_point)
        if renew:
            killed = self._environment.fuse.killable(mount, self._environment.mounts())
            rows = self._renewable(mount_point, force=force)
            due = replace(due, killed=list(killed), renewed=[_name(row) for row in rows])
            if not dry_run and not vouch:
                raise Refused(
                    f"what the client of {mount_point} had sent, its storage may still write: over"
                    " what the guests write when they go on",
                    hint="see that it does not (its vendor tells how), and say"
                    " --i-know-that-the-storage-writes-nothing-more REASON",
                )
        elif not force and (who := self._running_on(mount_point)):
            raise Refused(
                f"{who} on {mount_point}: what is not written yet would be lost",
                hint="stop them first, or say --force",
            )
        if dry_run:
            return due
        if self._mount(mount_point) != mount:
            raise Refused(f"{mount_point} changed while it was looked at")
        self._environment.fuse.abort(mount)
        said = f" ({vouch})" if vouch else ""
        self._environment.event_log.saw(
            f"the FUSE connection of {mount_point} was aborted{said}", link=mount_point
        )
        return self._renewed(due, mount, rows) if renew else replace(due, done=True)

    def _renewed(self, due: Repair, mount: Mount, rows: Sequence[Attachment]) -> Repair:
        """Kill the client, see it dead, and take the passes that follow from that."""
        self._environment.fuse.kill(mount, self._environment.mounts())
        for name in due.killed:
            self._environment.event_log.saw(f"{name} was killed", link=due.subject)
        problems = self._settled(rows)
        for row in self._on_link(due.subject):
            if row not in rows:
                self._driver.push(row)
        recorded = self._records.renewals()
        for row in rows:
            if row.key in recorded:
                problems.setdefault(row.key, "its guest waits for its other disks")
        return replace(
            due,
            done=True,
            renewed=[_name(row) for row in rows if row.key not in problems],
            problem="; ".join(f"{_name(r)}: {problems[r.key]}" for r in rows if r.key in problems),
        )

    def _settled(self, rows: Sequence[Attachment]) -> dict[Key, str]:
        """Give the disks of *rows* anew; why not, of those for which that came to nothing."""
        problems, deadline = {}, Deadline(_RENEWAL_TIMEOUT_SECONDS)
        for row in rows:
            try:
                self._driver.settle(row, deadline)
            except MoorlineError as e:
                problems[row.key] = e.message
        return problems

    def _on_link(self, link: str) -> list[Attachment]:
        return [row for row in self._records.all() if row.link == link]

    def _renewable(self, link: str, *, force: bool) -> list[Attachment]:
        """The attachments whose disks running guests are given anew.

        Raises Refused if a guest that runs, or may, has a disk there that is none of these, unless
        *force*: it sees errors, then.
        """
        try:
            guests = [guest for guest in self._survey() if guest.running]
            if not force and (unsure := unknown_users(guests)):
                raise Refused(f"it cannot be told which guests run ({'; '.join(unsure)})")
        except Refused:
            raise
        except MoorlineError as e:
            raise Refused(f"it cannot be told which guests run ({e})") from e
        found = []
        for guest in guests:
            if not users(link, [guest]):
                continue
            rows = [row for row in self._on_link(link) if row.key.guest == guest.id]
            plugged = [row for row in rows if row.key.volume in guest.disks]
            try:
                self._demand_known(link, guest, rows)
                for row in plugged:
                    self._reconciler.renewals.foresee(row)
            except MoorlineError as e:
                if force:
                    continue
                raise Refused(
                    f"{guest.name} has disks on {link} that cannot be given to it anew: {e}",
                    hint="stop it first, or say --force: it sees errors, then",
                ) from e
            found += plugged
        return found

    @staticmethod
    def _demand_known(link: str, guest: Guest, rows: Sequence[Attachment]) -> None:
        there = [row for row in rows if row.key.volume in guest.disks]
        if leaving := [row.key.volume for row in there if row.want is not Level.ATTACHED]:
            raise Refused(f"volume {', '.join(leaving)} is on its way out, as it is to be detached")
        ours = {guest.disks[row.key.volume].source for row in there}
        others = replace(guest, paths=guest.paths - ours)
        if users(link, [others]):
            odd = sorted(path for path in others.paths if path.startswith(f"{link}/"))
            raise Refused(f"{', '.join(odd) or link} is no attachment's")

    def _mount(self, mount_point: str) -> Mount:
        mounts = [m for m in self._environment.mounts() if m.target == mount_point]
        if not mounts:
            raise NotFound(f"nothing is mounted at {mount_point}", hint="moorline doctor")
        return mounts[-1]

    def _demand_hung(self, link: str, *, renew: bool) -> None:
        survey = self._reconciler.survey()
        seen: list[Link | None] = [
            found.ill for _, found in links(survey.links.backends) if found.link == link
        ]
        seen += [survey.links.inspect(row) for row in survey.rows if row.link == link]
        if not seen:
            raise NotOurs(f"{link} is no link of Moorline's")
        # One that was aborted before, and whose client was not killed, is as good as hung.
        cut_off = any(isinstance(ill, Broken) and ill.client is Client.CUT_OFF for ill in seen)
        if not any(isinstance(i, Unknown) and i.hangs for i in seen) and not (renew and cut_off):
            raise Refused(f"{link} does not hang", hint="moorline doctor")

    def _running_on(self, link: str) -> str:
        """Which running guests use it, in words; '' if none does."""
        try:
            guests = [guest for guest in self._survey() if guest.running]
        except MoorlineError as e:
            return f"it cannot be told which guests run ({e})"
        if unsure := unknown_users(guests):
            return f"it cannot be told which guests run ({'; '.join(unsure)})"
        names = users(LinkName(link), guests)
        return f"{', '.join(names)} run" if len(names) > 1 else f"{names[0]} runs" if names else ""


def _name(row: Attachment) -> str:
    return f"{row.guest_name}/{row.key.volume}"
