"""What doctor finds where the volume service and our records say different things."""

from __future__ import annotations

from collections.abc import Iterator

from moorline.care.finding_texts import command
from moorline.core.records import Records
from moorline.core.reservations import Reservations
from moorline.errors import MoorlineError
from moorline.model import Key, Level
from moorline.ports.inspection import Finding
from moorline.ports.volume_service import Reservation


def service_findings(records: Records, reservations: Reservations) -> Iterator[Finding]:
    """Compare what is recorded here with what the service has. Where nothing is, nobody is asked.

    Blocks for the service's answers. Raises what the store does.
    """
    for key, noted in records.reservations().items():
        row = records.get(key)
        try:
            seen = reservations.look(key, noted)
        except MoorlineError as e:
            yield _not_told(key, noted, str(e))
            continue
        if row is None and seen:
            yield _left_behind(key, noted)
        elif row is not None and row.want > Level.ABSENT and not seen:
            yield _taken_away(key, noted)
        elif row is not None and noted.completed and seen and not seen[0].complete:
            yield _unfinished(key, noted)


def _not_told(key: Key, noted: Reservation, why: str) -> Finding:
    return Finding(
        "cinder-not-asked",
        key.volume,
        why,
        f"whether Cinder still has volume {key.volume} attached to {noted.guest_name} cannot be"
        " told; the disk itself does not need Cinder",
        command("openstack", "volume", "show", key.volume),
    )


def _left_behind(key: Key, noted: Reservation) -> Finding:
    return Finding(
        "cinder-left-behind",
        key.volume,
        f"Cinder has volume {key.volume} attached to {noted.guest_name}, which does not have it",
        "nobody else can have the volume; an agent, or a sweep, tells Cinder",
        command("moorline", "sweep"),
    )


def _taken_away(key: Key, noted: Reservation) -> Finding:
    return Finding(
        "cinder-taken-away",
        key.volume,
        f"{noted.guest_name} has volume {key.volume}, and Cinder has no attachment of it any more",
        "Cinder may give the volume to somebody else, or delete it, while the guest writes to it;"
        " attached once more, Cinder has it on record again",
        command("moorline", "attach", noted.guest_name, f"cinder:{key.volume}"),
    )


def _unfinished(key: Key, noted: Reservation) -> Finding:
    return Finding(
        "cinder-unfinished",
        key.volume,
        f"{noted.guest_name} has volume {key.volume}, and Cinder is still attaching it",
        "Cinder was told once, and did what it was asked before that again: a late request, or"
        " somebody's hand; it extends no such volume; attached once more, it is told again",
        command("moorline", "attach", noted.guest_name, f"cinder:{key.volume}"),
    )
