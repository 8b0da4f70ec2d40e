"""adopt, release: disks that somebody else plugged."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from moorline.cli.attachments import named, volume_options
from moorline.cli.common import Common, common, dry_run_option
from moorline.cli.connection import read_connections
from moorline.cli.name_completion import FilePath, GuestName, VolumeName
from moorline.cli.output import aligned
from moorline.exit_codes import gravest
from moorline.model import Format
from moorline.ports.care_results import AdoptionOfAll, Candidate, DiskOutcome

_COLUMNS = ("DEVICE", "FORMAT", "PATH", "LIES ON", "MARK")
_OUTCOME_COLUMNS = ("GUEST", "DEVICE", "OUTCOME", "VOLUME", "PATH")
_NO_ERRORS = frozenset({"adopted", "released", "due", "kept", "left"})
"""Outcomes of a disk that are no errors (:class:`moorline.ports.care_results.DiskOutcome`)."""
_OWNER_TIMEOUT_SECONDS = 10.0
"""Seconds to wait for another command that owns the host."""
_UNSET = """\
Disks that are unset lie on shares that must be configured first. Put these lines into the
configuration, in place of those of the same names, restart the agent if one runs, and repeat:"""


@click.command()
@click.argument("guest", required=False, type=GuestName())
@volume_options
@click.option("--hands-off", is_flag=True, help="Nova goes on plugging it; keep its link alone.")
@click.option("--target", default="", metavar="DEV", help="The disk that it must be, such as vdb.")
@click.option("--all", "all_", is_flag=True, help="All disks of GUEST; without GUEST, of all.")
@click.option(
    "--connections",
    type=FilePath(allow_dash=True),
    metavar="FILE",
    help="With --all: connections as Nova's or Cinder's database has them, as JSON.",
)
@click.option("--cinder", is_flag=True, help="With --all: ask Cinder for connections, by serials.")
@click.option("--local", is_flag=True, help="With --all: also local files and devices.")
@dry_run_option
@common
def adopt(
    given: Common,
    guest: str | None,
    volume_url: str | None,
    connection: Path | None,
    format_: Format | None,
    volume: str | None,
    target: str,
    hands_off: bool,
    all_: bool,
    connections: Path | None,
    cinder: bool,
    local: bool,
    dry_run: bool,
) -> None:
    """Take over a disk of GUEST that somebody else plugged, Nova for example.

    The disk and its mount stay as they are. Without a connection, the guest's
    disks are listed. `moorline release` undoes it.

    With --all, every disk is taken over whose volume is known: by --connections, by
    Cinder, or by the share that it lies on. Disks on shares that must be configured first are
    left, and the lines to configure are told. It can be repeated.

    \b
    Examples:
      moorline adopt web01
      moorline adopt web01 --connection cinder.json --target vdb
      moorline adopt web01 quobyte://reg1,reg2/volume/disk.qcow2 --format qcow2
      moorline adopt web01 cinder:data
      moorline adopt --all --dry-run
      moorline adopt --all --cinder
      moorline adopt --all --connections mappings.json --hands-off
    """
    if all_:
        if any((volume_url, connection, format_, volume, target)):
            raise click.UsageError("--all takes no single volume: give --connections FILE")
        rows = read_connections(str(connections)) if connections else []
        how = {"cinder": cinder, "local": local, "hands_off": hands_off}
        _adopt_all(given, guest, rows, **how, dry_run=dry_run)
        return
    if guest is None or connections is not None or cinder or local:
        raise click.UsageError(
            "give a GUEST, or --all; --connections, --cinder and --local belong to --all"
        )
    what = named(volume_url, connection, format_)
    if what is None:
        with given.open(own=False, first=True) as moorline:
            candidates = moorline.maintenance.disks(guest)
        given.tell(candidates, aligned([_COLUMNS, *map(_row, candidates)]))
        return
    with given.open(own=not dry_run, patience=_OWNER_TIMEOUT_SECONDS, first=True) as moorline:
        adoption = moorline.maintenance.adopt(
            guest,
            what,
            format=format_,
            volume=volume,
            target=target,
            hands_off=hands_off,
            dry_run=dry_run,
        )
    view = adoption.view
    if dry_run:
        text = f"would {', '.join(adoption.steps)}" if adoption.steps else "nothing to do"
    else:
        text = f"volume {view.volume} of {view.guest} is adopted, and seen {view.seen}"
    given.tell(adoption, text)


@click.command()
@click.argument("guest", required=False, type=GuestName())
@click.argument("volume", required=False, type=VolumeName(), metavar="VOLUME")
@click.option("--all", "all_", is_flag=True, help="All volumes of GUEST; without GUEST, of all.")
@dry_run_option
@common
def release(
    given: Common, guest: str | None, volume: str | None, all_: bool, dry_run: bool
) -> None:
    """Give a volume's disk and link back as they are: Moorline forgets them.

    The opposite of adopt, and the way back to Nova. The disk keeps its mark.
    With --all, every attachment is released, also those that Moorline plugged.

    \b
    Examples:
      moorline release web01 3f2a
      moorline release --all --dry-run
    """
    if all_ and volume is not None:
        raise click.UsageError("give either VOLUME or --all")
    if all_:
        with given.open(own=not dry_run, patience=_OWNER_TIMEOUT_SECONDS) as moorline:
            released = moorline.maintenance.release_all(guest, dry_run=dry_run)
        given.tell(released, _table(released) or "nothing is attached")
        _exit(released)
        return
    if guest is None or volume is None:
        raise click.UsageError("give GUEST and VOLUME, or --all")
    with given.open(own=not dry_run, patience=_OWNER_TIMEOUT_SECONDS) as moorline:
        adoption = moorline.maintenance.release(guest, volume, dry_run=dry_run)
    would = "would release" if dry_run else "released"
    view = adoption.view
    given.tell(adoption, f"{would} volume {view.volume} on {view.guest}, which keeps its disk")


def _adopt_all(
    given: Common,
    guest: str | None,
    rows: Sequence[Mapping[str, Any]],
    *,
    dry_run: bool,
    **how: bool,
) -> None:
    """Say what would be done, then do it and say what came of it."""
    with given.open(own=not dry_run, patience=_OWNER_TIMEOUT_SECONDS, first=True) as moorline:
        if dry_run or not given.is_data:
            found = moorline.maintenance.adopt_all(guest, connections=rows, dry_run=True, **how)
            given.tell(found, _told(found))
        if not dry_run and (given.is_data or _is_due(found)):
            found = moorline.maintenance.adopt_all(guest, connections=rows, **how)
            done = [each for each in found.disks if each.outcome != "left"]
            given.tell(found, _table(done))
    _exit(found.disks)


def _is_due(found: AdoptionOfAll) -> bool:
    return any(each.outcome == "due" for each in found.disks)


def _told(found: AdoptionOfAll) -> str:
    table = _table(found.disks) or "no guest has a disk"
    if not found.settings:
        return table
    return "\n".join([table, "", _UNSET, "", "[libvirt]", *found.settings])


def _table(disks: Sequence[DiskOutcome]) -> str:
    if not disks:
        return ""
    rows = [(d.guest, d.device, d.outcome, d.volume, d.path) for d in disks]
    lines = aligned([_OUTCOME_COLUMNS, *rows]).splitlines()
    for number, disk in reversed([*enumerate(disks, 1)]):
        lines[number + 1 : number + 1] = [f"  {why}" for why in (disk.why, disk.hint) if why]
    return "\n".join(lines)


def exit_code_of(disks: Sequence[DiskOutcome]) -> int:
    """As a command on the one disk would end that came out worst."""
    outcomes = {disk.outcome for disk in disks} - _NO_ERRORS
    return gravest("refused" if outcome == "unset" else outcome for outcome in outcomes)


def _exit(disks: Sequence[DiskOutcome]) -> None:
    if code := exit_code_of(disks):
        sys.exit(code)


def _row(candidate: Candidate) -> tuple[str, ...]:
    disk = candidate.disk
    whose = "wanted" if candidate.wanted else f"marked {disk.mark}" if disk.mark else "no mark"
    lies_on = candidate.backend or "no mount of ours"
    return disk.device, disk.format, disk.path, lies_on, whose
