"""Whether each host of a toy fleet names all that it reports."""

from __future__ import annotations

from moorline.fleet.held import ANYTHING, digest, named_by
from tests.support.toy_fleet import ToyFleet


def unheld(fleet: ToyFleet) -> list[str]:
    """What a host reports, and its entry for who asks does not name: nothing, ever."""
    lacking = []
    for host in fleet.sites:
        entry, desired = fleet.person.held(host), fleet.person.desired(host)
        reports = fleet.person.reports(host)
        named = {each for report in reports.guests.values() for each in report.written}
        for of, report in reports.volumes.items():
            row = desired.attachments.get(of)
            if report.by_itself or (row and row.revision == report.attachment):
                named |= named_by(report, *of, row)
        if entry is not None and ANYTHING not in entry.digests:
            digests = {digest(each) for each in named}
            lacking += [f"{host}: {each}" for each in digests.difference(entry.digests)]
    return lacking
