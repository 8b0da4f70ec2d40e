"""extend: the command that lets a guest see that a volume became larger."""

from __future__ import annotations

import re

import click

from moorline.cli.common import Common, common, dry_run_option, timeout_option
from moorline.cli.output import dump

_UNITS = "KMGTP"


def _bytes(_: click.Context, __: click.Parameter, text: str | None) -> int | None:
    """Bytes, or a whole number of KiB, MiB, GiB …: ``20G`` or ``20GiB``."""
    if text is None:
        return None
    match = re.fullmatch(rf"([1-9][0-9]{{0,18}})(?:([{_UNITS}])(?:iB)?)?", text, re.IGNORECASE)
    if match is None:
        raise click.BadParameter(f"{text!r} is no size, such as 20G or 21474836480")
    power = _UNITS.index(match[2].upper()) + 1 if match[2] else 0
    return int(match[1]) << (10 * power)


@click.command()
@click.argument("guest")
@click.argument("volume")
@click.argument("size", required=False, callback=_bytes)
@timeout_option
@dry_run_option
@common
def extend(
    given: Common, guest: str, volume: str, size: int | None, timeout: float, dry_run: bool
) -> None:
    """Let GUEST see, while it runs, that a volume became larger.

    Files and block devices are extended first, by Cinder or by hand; SIZE is
    then only waited for, and may be left out. A disk on a vSphere datastore is
    made SIZE large. SIZE is in bytes, or with K, M, G, T: powers of 1024.

    \b
    Examples:
      moorline extend web01 3f2a
      moorline extend web01 3f2a 20G --timeout 300
    """
    with given.open(own=not dry_run, patience=timeout) as moorline:
        outcome = moorline.extend(
            guest, volume, size, timeout=timeout, progress=given.progress, dry_run=dry_run
        )
    if given.output != "text":
        click.echo(dump(outcome.to_dict(), given.output))
    elif outcome.steps:
        has = "would have" if dry_run else "has"
        click.echo(
            f"volume {outcome.view.volume} {has} {outcome.size} bytes on"
            f" {outcome.view.guest}, which saw {outcome.before}"
        )
    else:
        click.echo(
            f"volume {outcome.view.volume} has {outcome.size} bytes on {outcome.view.guest} already"
        )
