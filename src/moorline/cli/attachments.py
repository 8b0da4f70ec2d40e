"""attach, detach, forget, sweep: the commands that change something."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from moorline.cli.common import (
    MAX_TIMEOUT_SECONDS,
    Common,
    F,
    common,
    dry_run_option,
    from_here,
    timeout_option,
    told,
    volume_argument,
    vouch_option,
)
from moorline.cli.connection import read_connection
from moorline.cli.output import outcome as told_outcome
from moorline.cli.output import table
from moorline.errors import Failed
from moorline.model import DiskOptions, Format, Level
from moorline.ports.api import DEFAULT_TIMEOUT_SECONDS
from moorline.ports.results import Outcome

_VOLUME: tuple[Callable[..., Any], ...] = (
    click.argument("volume_url", required=False, metavar="[URL|PATH]"),
    click.option(
        "--connection",
        type=click.Path(allow_dash=True, path_type=Path),
        metavar="FILE",
        help="Cinder's connection_info as JSON, - for standard input.",
    ),
    click.option(
        "--format",
        "format_",
        type=click.Choice(["raw", "qcow2", "ploop"]),
        help="Format of the file at URL or PATH; it is never guessed.",
    ),
    click.option("--volume", metavar="ID", help="The volume's id, where the connection has none."),
)


def volume_options(command: F) -> F:
    """Give *command* the ways to name a volume; :func:`named` reads them."""
    for option in reversed(_VOLUME):
        command = option(command)
    return command


def named(
    volume_url: str | None, connection: Path | None, format_: Format | None
) -> Mapping[str, Any] | str | None:
    """The connection, or what was typed for one; None: neither. Raises UsageError, Refused."""
    if volume_url is not None and connection is not None:
        raise click.UsageError("give either URL|PATH or --connection FILE")
    if connection is not None and format_ is not None:
        raise click.UsageError("--format belongs to URL|PATH: a connection bears its own")
    if connection is not None:
        return read_connection(str(connection))
    return None if volume_url is None else from_here(volume_url)


@click.command()
@click.argument("guest")
@volume_options
@click.option("--bus", default="", metavar="BUS", help="virtio or scsi; default: virtio.")
@click.option("--target", default="", metavar="DEV", help="Such as vdb; default: the next free.")
@click.option("--read-only", is_flag=True, help="The guest may only read.")
@click.option("--shared", is_flag=True, help="Other guests write to it as well, and know how.")
@click.option(
    "--level",
    type=click.Choice(["connected", "attached"]),
    default="attached",
    show_default=True,
    help="connected: make it reachable on the host only.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, max=MAX_TIMEOUT_SECONDS),
    metavar="SECONDS",
    help="How long to go on trying; default: 60, or until the same step fails for about 10.",
)
@vouch_option
@dry_run_option
@common
def attach(
    given: Common,
    guest: str,
    volume_url: str | None,
    connection: Path | None,
    format_: Format | None,
    volume: str | None,
    bus: str,
    target: str,
    read_only: bool,
    shared: bool,
    level: str,
    timeout: float | None,
    vouch: str,
    dry_run: bool,
) -> None:
    """Make a volume a disk of GUEST (name or id), now and after reboots.

    \b
    Examples:
      moorline attach web01 --connection quobyte.json
      openstack … -f json | moorline attach web01 --connection -
      moorline attach web01 quobyte://reg1,reg2/volume/disk.qcow2 --format qcow2
      moorline attach web01 /srv/disks/data.raw --format raw --bus scsi
    """
    what = named(volume_url, connection, format_)
    if what is None:
        raise click.UsageError("give either URL|PATH or --connection FILE")
    patience = DEFAULT_TIMEOUT_SECONDS if timeout is None else timeout
    with given.open(own=not dry_run, patience=patience, first=True) as moorline:
        outcome = moorline.attachments.attach(
            guest,
            what,
            format=format_,
            volume=volume,
            level=Level[level.upper()],
            options=DiskOptions(bus, target, read_only, shared),
            **told(vouch=vouch or None),
            timeout=timeout,
            progress=given.progress,
            dry_run=dry_run,
        )
    _tell(given, outcome, dry_run)


@click.command()
@click.argument("guest")
@volume_argument
@timeout_option
@dry_run_option
@common
def detach(given: Common, guest: str, volume: str, timeout: float, dry_run: bool) -> None:
    """Take a volume away from GUEST; its link goes with the last user.

    VOLUME is its id, the beginning of its id, its device in GUEST, or the URL
    or path that was typed to attach it. A whole id that is not there is
    success; anything else that is not known is not. The volume's data is
    never touched.

    \b
    Examples:
      moorline detach web01 3f2a
      moorline detach web01 vdb
      moorline detach web01 /srv/disks/data.raw --timeout 300
    """
    with given.open(own=not dry_run, patience=timeout) as moorline:
        outcome = moorline.attachments.detach(
            guest, volume, timeout=timeout, progress=given.progress, dry_run=dry_run
        )
    if outcome is not None:
        _tell(given, outcome, dry_run)
    else:
        given.tell(None, f"volume {volume} is no disk of {guest}")


@click.command()
@volume_argument
@click.option("--guest", metavar="GUEST", help="Only the attachment for this guest.")
@dry_run_option
@common
def forget(given: Common, volume: str, guest: str | None, dry_run: bool) -> None:
    """Drop an attachment whose disk and link are provably gone.

    For guests that were deleted while a volume was wanted on them. Refused
    while anything of it is still there; `moorline detach` takes that away.

    \b
    Example:
      moorline forget 3f2a --guest web01
    """
    with given.open(own=not dry_run, patience=10.0) as moorline:
        views = moorline.attachments.forget(volume, guest, dry_run=dry_run)
    would = "would forget" if dry_run else "forgot"
    lines = [f"{would} volume {view.volume} on {view.guest}" for view in views]
    given.tell(views, "\n".join(lines))


@click.command()
@common
def sweep(given: Common) -> None:
    """Bring every attachment as far as it goes without waiting.

    For a timer where no agent runs, and after a crash. Exits 5 and lists what
    is not as wanted if anything is left.

    \b
    Example:
      moorline sweep --output json
    """
    with given.open(own=True, patience=10.0) as moorline:
        left = moorline.attachments.sweep(given.progress)
    given.tell(left, table(left) if left else "")
    if left:
        count = len(left)
        raise Failed(f"{count} attachment{'s are' if count > 1 else ' is'} not as wanted yet")


def _tell(given: Common, outcome: Outcome, dry_run: bool) -> None:
    given.tell(outcome, told_outcome(outcome, dry_run))
