"""adopt, release: disks that somebody else plugged."""

from __future__ import annotations

from pathlib import Path

import click

from moorline.cli.attachments import named, volume_options
from moorline.cli.common import (
    Common,
    common,
    dry_run_option,
    guest_argument,
    volume_argument,
)
from moorline.cli.output import aligned
from moorline.model import Format
from moorline.ports.results import Candidate

_COLUMNS = ("DEVICE", "FORMAT", "PATH", "LIES ON", "MARK")


@click.command()
@guest_argument
@volume_options
@click.option("--hands-off", is_flag=True, help="Nova goes on plugging it; keep its link alone.")
@click.option("--target", default="", metavar="DEV", help="The disk that it must be, such as vdb.")
@dry_run_option
@common
def adopt(
    given: Common,
    guest: str,
    volume_url: str | None,
    connection: Path | None,
    format_: Format | None,
    volume: str | None,
    target: str,
    hands_off: bool,
    dry_run: bool,
) -> None:
    """Take over a disk of GUEST that somebody else plugged, Nova for example.

    The disk and its mount stay as they are. Without a connection, the guest's
    disks are listed. `moorline release` undoes it.

    \b
    Examples:
      moorline adopt web01
      moorline adopt web01 --connection cinder.json --target vdb
      moorline adopt web01 quobyte://reg1,reg2/volume/disk.qcow2 --format qcow2
    """
    what = named(volume_url, connection, format_)
    if what is None:
        with given.open(own=False, first=True) as moorline:
            candidates = moorline.maintenance.disks(guest)
        given.tell(candidates, aligned([_COLUMNS, *map(_row, candidates)]))
        return
    with given.open(own=not dry_run, patience=10.0, first=True) as moorline:
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
@guest_argument
@volume_argument
@dry_run_option
@common
def release(given: Common, guest: str, volume: str, dry_run: bool) -> None:
    """Give a volume's disk and link back as they are: Moorline forgets them.

    The opposite of adopt, and the way back to Nova. The disk keeps its mark.

    \b
    Example:
      moorline release web01 3f2a
    """
    with given.open(own=not dry_run, patience=10.0) as moorline:
        adoption = moorline.maintenance.release(guest, volume, dry_run=dry_run)
    would = "would release" if dry_run else "released"
    view = adoption.view
    given.tell(adoption, f"{would} volume {view.volume} on {view.guest}, which keeps its disk")


def _row(candidate: Candidate) -> tuple[str, ...]:
    disk = candidate.disk
    whose = "wanted" if candidate.wanted else f"marked {disk.mark}" if disk.mark else "no mark"
    lies_on = candidate.backend or "no mount of ours"
    return disk.device, disk.format, disk.path, lies_on, whose
