"""list, show: the commands that only look."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

import click

from moorline.byte_sizes import human
from moorline.cli.common import (
    Common,
    common,
    common_with,
    guest_option,
    told,
    volume_argument,
)
from moorline.cli.name_completion import GuestName, LabelName, ShareName
from moorline.cli.output import (
    Painted,
    aligned,
    details,
    ended_by_its_reader,
    failed,
    is_as_wanted,
    say,
    table,
)
from moorline.errors import Unavailable
from moorline.ports.results import View

if TYPE_CHECKING:
    from moorline.ports.care_results import Candidate

WATCH_SECONDS = 2.0
"""Seconds between two looks of ``--watch``."""
_CLEAR = "\x1b[H\x1b[2J"
_DISKS = ("GUEST", "DEVICE", "WHOSE", "VOLUME", "FORMAT", "SIZE", "PATH")


@click.command("list")
@click.argument("guest", required=False, type=GuestName())
@click.option("--share", type=ShareName(), metavar="SHARE", help="On this link, or below this URL.")
@click.option("--label", type=LabelName(), metavar="LABEL", help="Of this label alone.")
@click.option("--not-as-wanted", is_flag=True, help="Only what is not as it is wanted.")
@click.option("--sizes", is_flag=True, help="Also how large they are; implied by -o wide.")
@click.option("--watch", "-w", is_flag=True, help="Go on, and show it anew as it changes.")
@common_with("wide", "name")
def list_(
    given: Common,
    guest: str | None,
    share: str | None,
    label: str | None,
    not_as_wanted: bool,
    sizes: bool,
    watch: bool,
) -> None:
    """List the attachments of this host: what is wanted, what is seen.

    Of GUEST (name or id), or all. `-o wide` also tells format, size and link,
    `-o name` the volumes' ids alone. On a terminal, what is not as wanted is red
    (not if NO_COLOR is set). With --watch, JSON is one list a line.

    \b
    Examples:
      moorline list
      moorline list web01 -o wide
      moorline list --share nfs://nas.example/export --not-as-wanted
      moorline list --output json | jq '.[] | select(.next != "nothing")'
    """
    wide = sizes or given.output == "wide"
    asked = told(guest=guest, share=share, sizes=wide)

    def look() -> Sequence[View]:
        with given.open(own=False) as moorline:
            found = moorline.attachments.list(**asked)
        found = [view for view in found if label in (None, view.label)]
        return [view for view in found if not (not_as_wanted and is_as_wanted(view))]

    if watch:
        with ended_by_its_reader():
            _watch(given, look)
    views = look()
    given.tell(views, _listed(views, given.output))


@click.command()
@volume_argument
@guest_option
@common
def show(given: Common, volume: str, guest: str | None) -> None:
    """Show one volume: its link, who else holds it, the last error, what comes next.

    VOLUME is its id, the beginning of its id, or the URL or path that was
    typed to attach it.

    \b
    Examples:
      moorline show 3f2a
      moorline show vdb --guest web01
    """
    with given.open(own=False) as moorline:
        views = moorline.attachments.show(volume, **told(guest=guest))
    given.tell(views, "\n\n".join(details(view) for view in views))


@click.command()
@click.argument("guest", required=False, type=GuestName())
@common
def disks(given: Common, guest: str | None) -> None:
    """List every disk of every guest, or of GUEST: whose it is, how large, where.

    Ours, released (it was ours, and stays), Nova's (it plugs the disk, or
    defines the guest), or another's (plugged by hand, say). Changes nothing.

    \b
    Examples:
      moorline disks
      moorline disks web01 --output json
    """
    with given.open(own=False) as moorline:
        found = moorline.maintenance.disks(**told(guest=guest))
    given.tell(found, aligned([_DISKS, *map(_disk, found)]))


def _disk(candidate: Candidate) -> tuple[str, ...]:
    disk = candidate.disk
    return (
        candidate.guest,
        disk.device or "-",
        candidate.whose,
        disk.mark or "-",
        disk.format or "-",
        human(candidate.size),
        disk.path or "-",
    )


def _listed(views: Sequence[View], output: str) -> str:
    if output == "name":
        return "\n".join(dict.fromkeys(view.volume for view in views))
    return table(views, wide=output == "wide")


def _watch(given: Common, look: Callable[[], Sequence[View]]) -> NoReturn:
    """Show what *look* tells, again and again; on a terminal in one place."""
    paint = not given.is_data and sys.stdout.isatty()
    shown = None
    while True:
        try:
            views = look()
        except Unavailable as e:  # an agent that is being restarted, say
            failed(e, given.output)
        else:
            if given.is_data:
                text = json.dumps([view.to_dict() for view in views])
            else:
                text = _listed(views, given.output)
            if paint:
                say(Painted(f"{_CLEAR}{time.strftime('%H:%M:%S')}\n{text}"))
            elif text != shown:
                say(text)
            shown = text
        time.sleep(WATCH_SECONDS)
