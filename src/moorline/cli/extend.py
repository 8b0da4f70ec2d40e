"""extend: the command that lets a guest see that a volume became larger."""

from __future__ import annotations

import click

from moorline.byte_sizes import exact
from moorline.cli.common import (
    Common,
    common,
    dry_run_option,
    guest_argument,
    timeout_option,
    told,
    volume_argument,
)
from moorline.cli.sizes import size as size_


@click.command()
@guest_argument
@volume_argument
@click.argument("size", required=False, callback=size_)
@click.option(
    "--grow",
    is_flag=True,
    help="Make the raw or qcow2 file larger, too, where nobody else does: SIZE is what it becomes.",
)
@timeout_option
@dry_run_option
@common
def extend(
    given: Common,
    guest: str,
    volume: str,
    size: int | None,
    grow: bool,
    timeout: float,
    dry_run: bool,
) -> None:
    """Let GUEST see, while it runs, that a volume became larger.

    Files and block devices are extended first, by Cinder or by hand; SIZE is
    then only waited for, and may be left out. With --grow a file is made
    larger here, whether GUEST runs or not, and never shorter. A disk on a vSphere datastore is
    made SIZE large. SIZE is in bytes, or with K, M, G, T: powers of 1024.

    \b
    Examples:
      moorline extend web01 3f2a
      moorline extend web01 3f2a 20G --timeout 300
      moorline extend web01 3f2a --grow 20G
      moorline extend web01 vmdk://vvol1/volumes/data.vmdk 40G
    """
    if grow and size is None:
        raise click.UsageError("give SIZE, which the file becomes with --grow")
    asked = told(grow=grow)
    with given.open(own=not dry_run, patience=timeout) as moorline:
        outcome = moorline.attachments.extend(
            guest, volume, size, timeout=timeout, progress=given.progress, dry_run=dry_run, **asked
        )
    view, has = outcome.view, "would have" if dry_run and outcome.steps else "has"
    before = f", which saw {exact(outcome.before)}" if outcome.steps else " already"
    size_now = exact(outcome.size)
    given.tell(outcome, f"volume {view.volume} {has} {size_now} on {view.guest}{before}")
