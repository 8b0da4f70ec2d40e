"""What a host reports of the attachments that the fleet wants there."""

from __future__ import annotations

from dataclasses import replace

from moorline.errors import Unavailable
from moorline.fleet import keys
from moorline.fleet.held import Holding, named_by
from moorline.fleet.host_look import Look
from moorline.fleet.local_volumes import Served
from moorline.fleet.record_store import Change
from moorline.fleet.records import Role, VolumeReport
from moorline.model import Attachment, GuestId, VolumeId


class VolumeReports:
    """Writes them, where they say something new. Every method raises as the store."""

    def __init__(self, name: str, holding: Holding) -> None:
        self._name = name
        self._holding = holding

    def served(self, look: Look, wanted: Attachment, served: Served) -> None:
        """Report what came of *wanted*."""
        of = wanted.key.guest, wanted.key.volume
        before = look.reports.volumes.get(of)
        unseen = before.places if before else ()
        report = VolumeReport(
            attachment=wanted.revision,
            seen=str(wanted.want) if served.as_wanted else "",
            error=served.error,
            message=served.message,
            lost=served.lost,
            hint=served.hint,
            places=unseen if served.places is None else served.places,
            path=served.path or (before.path if before else ""),
            other_file=served.other_file,
        )
        self._tell(look, of, report, wanted)

    def unread(self, look: Look) -> None:
        """Report what cannot be read: nothing is done about it. What its guest has as its disk
        stays reported, as nobody else may be given that.
        """
        for (guest, volume), unread in look.desired.unread.items():
            if look.fenced or look.role(guest) in (None, Role.LEAVING):
                continue
            before = look.reports.volumes.get((guest, volume))
            report = VolumeReport(
                attachment=unread.revision,
                error=Unavailable(unread.why).kind,
                message=unread.why,
                places=before.places if before else (),
                path=before.path if before else "",
            )
            self._tell(look, (guest, volume), report)

    def _tell(
        self,
        look: Look,
        of: tuple[GuestId, VolumeId],
        report: VolumeReport,
        wanted: Attachment | None = None,
    ) -> None:
        before = look.reports.volumes.get(of)
        if before is None or replace(before, revision=0) != report:
            change = Change()
            change.replace(keys.report(keys.attachment(self._name, *of)), before, report)
            revision = self._holding.commit(change, named_by(report, *of, wanted))
            look.reports.volumes[of] = replace(report, revision=revision)
