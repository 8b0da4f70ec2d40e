"""What hosts have by themselves is owned like the rest; what is somebody else's is disputed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from moorline.errors import Refused
from moorline.fleet import keys
from moorline.fleet.ownership import Ownership
from moorline.fleet.record_store import Book, Change, OfHost
from moorline.fleet.records import HostRecord, OwnClaim
from moorline.model import GuestId, VolumeId

Claims = Mapping[tuple[str, GuestId, VolumeId], OwnClaim]


class OwnClaims:
    """What a controller does about the volumes that hosts have without the fleet."""

    def __init__(self, book: Book, ownership: Ownership) -> None:
        self._book = book
        self._ownership = ownership

    def due(
        self, host: str, record: HostRecord, desired: OfHost, reports: OfHost, claims: Claims
    ) -> Iterator[tuple[str, Change | None]]:
        """Claim what *host* reports, drop what it reports no more, and tell it what it lost."""
        own = {of: report for of, report in reports.volumes.items() if report.own}
        for (at, guest, volume), claim in claims.items():
            if at == host and (guest, volume) not in own:
                gone = self._ownership.drop_own(host, guest, volume, claim)
                yield f"{host} has volume {volume} by itself no more", gone
        disputed = []
        for (guest, volume), report in sorted(own.items()):
            if (guest, volume) in desired.attachments:
                continue  # it is the fleet's by now, which its host has yet to hear
            try:
                change = self._ownership.claim_own(host, guest, volume, report)
                yield f"{host} has volume {volume} by itself", change
            except Refused:
                disputed.append(f"{guest}/{volume}")
        if record.disputed != tuple(disputed):
            what = f"{host} has by itself what is others': {len(disputed)}"
            yield what, _told(host, record, disputed)


def _told(host: str, record: HostRecord, disputed: list[str]) -> Change:
    change = Change()
    change.replace(keys.host(host), record, replace(record, disputed=tuple(disputed)))
    for of in sorted(set(disputed) - set(record.disputed)):
        guest, volume = of.split("/", 1)
        change.note("dispute", host, f"volume {volume} is another's by now", guest=guest)
    return change
