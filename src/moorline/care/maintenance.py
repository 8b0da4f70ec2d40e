"""The part of the façade for people who look after a host."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from moorline.care.adopt import Adopter, Adoption, Candidate
from moorline.care.doctor import Diagnosis, Doctor, Surroundings
from moorline.care.eventlog import JournalEntry
from moorline.care.explain import Explainer, Explanation
from moorline.care.repair import Repair, Repairer
from moorline.core.admission import Wishes
from moorline.core.pace import Pending
from moorline.core.reconciler import Reconciler
from moorline.core.records import Records
from moorline.errors import Refused
from moorline.model import Format, Key
from moorline.ports import Hypervisor


class Care:
    """events, explain, doctor, repair, abort, adopt, release: a base of the façade.

    All but the last four only look.
    """

    _records: Records
    _reconciler: Reconciler
    _hypervisor: Hypervisor
    _wishes: Wishes
    _around: Surroundings | None
    pending: Callable[[], Sequence[Pending]] = staticmethod(tuple)
    """What the owner's loop has in hand; nothing where no agent runs."""

    def detach(self, guest: str, volume: str) -> object:
        """As the façade's."""
        raise NotImplementedError

    def events(
        self, *, after: int = 0, since: float = 0.0, volume: str = "", most: int = 1000
    ) -> Sequence[JournalEntry]:
        """What was done and seen, oldest first; see :meth:`moorline.care.eventlog.Journal.read`."""
        return self._surroundings().journal.read(after=after, since=since, volume=volume, most=most)

    def explain(self, volume: str) -> Sequence[Explanation]:
        """Say how a volume's attachments stand, what they wait for and what to do.

        *volume*: as of ``show``. Raises NotFound.
        """
        pending = self.pending()
        survey = self._reconciler.survey()
        rows = self._wishes.known(volume, survey.rows)
        explainer = Explainer(
            self._surroundings().journal, self._records, self._reconciler, self._doctor().about
        )
        return [explainer.explain(row, survey, pending) for row in rows]

    def doctor(self) -> Diagnosis:
        """Find what is not as it should be on this host. Each share that hangs costs 2 s."""
        return self._doctor().examine()

    def repair(
        self, *, disks: bool = False, boot_disks: bool = False, dry_run: bool = False
    ) -> Sequence[Repair]:
        """Take away links that no wish and no guest needs; empty mount points too.

        *disks*: also disks that were ours, were released, and stay.
        *boot_disks*: of those even the ones that a guest boots from, or that are its only one.
        Raises Unavailable or Uncertain if the guests cannot be looked at: unknown means in use.
        """
        return self._repairer().repair(disks=disks, boot_disks=boot_disks, dry_run=dry_run)

    def abort(self, mount_point: str, *, force: bool = False, dry_run: bool = False) -> Repair:
        """End the FUSE connection of a share that hangs; see :meth:`Repairer.abort`."""
        return self._repairer().abort(mount_point, force=force, dry_run=dry_run)

    def disks(self, guest: str) -> Sequence[Candidate]:
        """All disks of *guest*, ours or not. Raises NotFound, Refused."""
        return self._adopter().candidates(guest)

    def adopt(
        self,
        guest: str,
        connection: Mapping[str, Any] | str,
        *,
        format: Format | None = None,
        volume: str | None = None,
        target: str = "",
        hands_off: bool = False,
        dry_run: bool = False,
    ) -> Adoption:
        """Take over a disk that somebody else plugged; see :meth:`Adopter.adopt`.

        *connection*, *format*, *volume*, *hands_off*: as of ``attach``.
        *target*: the disk that it must be.
        """
        return self._adopter().adopt(
            guest,
            connection,
            format=format,
            volume=volume,
            target=target,
            hands_off=hands_off,
            dry_run=dry_run,
        )

    def release(self, guest: str, volume: str, *, dry_run: bool = False) -> Adoption:
        """Give a disk and its link back as they are: only the wish goes.

        Raises NotFound, Refused (it is on its way out), Conflict.
        """
        return self._adopter().release(guest, volume, dry_run=dry_run)

    def _surroundings(self) -> Surroundings:
        if self._around is None:
            raise Refused("this host was opened without its surroundings")
        return self._around

    def _doctor(self) -> Doctor:
        around = self._surroundings()
        return Doctor(self._records, self._reconciler, self._hypervisor, around, self._in_hand)

    def _in_hand(self) -> set[Key]:
        return {each.key for each in self.pending() if not each.tries}

    def _repairer(self) -> Repairer:
        survey, around = self._hypervisor.survey, self._surroundings()
        return Repairer(self._records, self._reconciler, survey, self.detach, around)

    def _adopter(self) -> Adopter:
        around = self._surroundings()
        return Adopter(self._records, self._reconciler, self._hypervisor, self._wishes, around)
