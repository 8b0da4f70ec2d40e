"""list, show: the commands that only look."""

from __future__ import annotations

import click

from moorline.cli.common import Common, common, volume_argument
from moorline.cli.output import details, table


@click.command("list")
@common
def list_(given: Common) -> None:
    """List the attachments of this host: what is wanted, what is seen.

    \b
    Examples:
      moorline list
      moorline list --output json | jq '.[] | select(.wanted != .seen)'
    """
    with given.open(own=False) as moorline:
        views = moorline.attachments.list()
    given.tell(views, table(views))


@click.command()
@volume_argument
@common
def show(given: Common, volume: str) -> None:
    """Show one volume: its link, who else holds it, the last error, what comes next.

    VOLUME is its id, the beginning of its id, or the URL or path that was
    typed to attach it.

    \b
    Example:
      moorline show 3f2a
    """
    with given.open(own=False) as moorline:
        views = moorline.attachments.show(volume)
    given.tell(views, "\n\n".join(details(view) for view in views))
