"""adopt, release: disks that somebody else plugged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from moorline.adopting import Candidate
from moorline.cli.attachments import read_connection
from moorline.cli.common import Common, common, dry_run_option
from moorline.cli.output import dump
from moorline.model import Format


@click.command()
@click.argument("guest")
@click.argument("volume_url", required=False, metavar="[URL|PATH]")
@click.option(
    "--connection",
    type=click.Path(allow_dash=True, path_type=Path),
    metavar="FILE",
    help="Cinder's connection_info as JSON, - for standard input.",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["raw", "qcow2", "ploop"]),
    help="Format of the file at URL or PATH; it is never guessed.",
)
@click.option("--volume", metavar="ID", help="The volume's id, where the connection has none.")
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
    if volume_url is not None and connection is not None:
        raise click.UsageError("give either URL|PATH or --connection FILE")
    if connection is not None and format_ is not None:
        raise click.UsageError("--format belongs to URL|PATH: a connection bears its own")
    if volume_url is None and connection is None:
        with given.open(own=False) as moorline:
            _print(given, moorline.disks(guest))
        return
    with given.open(own=not dry_run, patience=10.0) as moorline:
        adoption = moorline.adopt(
            guest,
            read_connection(connection) if connection else str(volume_url),
            format=format_,
            volume=volume,
            target=target,
            dry_run=dry_run,
        )
    if given.output != "text":
        click.echo(dump(adoption.to_dict(), given.output))
    elif dry_run:
        click.echo(f"would {', '.join(adoption.steps)}" if adoption.steps else "nothing to do")
    else:
        view = adoption.view
        click.echo(f"volume {view.volume} is adopted, {view.seen} to {view.guest} as {view.device}")


@click.command()
@click.argument("guest")
@click.argument("volume")
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
        adoption = moorline.release(guest, volume, dry_run=dry_run)
    if given.output != "text":
        click.echo(dump(adoption.to_dict(), given.output))
        return
    would = "would release" if dry_run else "released"
    view = adoption.view
    click.echo(f"{would} volume {view.volume} on {view.guest}, which keeps its disk")


def _print(given: Common, candidates: Sequence[Candidate]) -> None:
    if given.output != "text":
        click.echo(dump([each.to_dict() for each in candidates], given.output))
        return
    for each in candidates:
        disk = each.disk
        whose = "wished" if each.wished else f"marked {disk.mark}" if disk.mark else "no mark"
        lies_on = each.backend or "no mount of ours"
        click.echo(f"{disk.device}  {disk.format}  {disk.path}  {lies_on}  {whose}")
