"""events: what was done and seen."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from datetime import datetime

import click

from moorline.cli.common import Common, common, told
from moorline.cli.name_completion import GuestName, VolumeName
from moorline.cli.output import ended_by_its_reader, say
from moorline.core.name_lookup import is_whole
from moorline.errors import MoorlineError, NotFound, Unavailable
from moorline.ports.results import EventLogEntry

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_POLL_SECONDS = 0.5


def since_when(_: click.Context, __: click.Parameter, text: str | None) -> float:
    """Seconds since the epoch, from an age (``10m``) or a date."""
    if text is None:
        return 0.0
    if age := re.fullmatch(r"([0-9]{1,9})([smhd])", text):
        return time.time() - int(age[1]) * _UNITS[age[2]]
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise click.BadParameter(f"{text!r} is neither like 10m nor like 2026-01-31") from None


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Go on with what happens from now.")
@click.option("--since", callback=since_when, metavar="AGE|DATE", help="Such as 10m, 2h or a date.")
@click.option("--volume", type=VolumeName(), metavar="VOLUME", help="Of this volume alone.")
@click.option(
    "--guest", type=GuestName(), metavar="GUEST", help="Of this guest alone (name or id)."
)
@common
def events(
    given: Common, follow: bool, since: float, volume: str | None, guest: str | None
) -> None:
    """Tell what was done and seen on this host, the latest last.

    VOLUME is its id, the beginning of its id, or the URL or path that was typed
    to attach it. The event log is bounded; what is older than some thousand
    entries is gone. With --follow, a whole id may be one that is still to come.
    With --follow, JSON is one object a line.

    \b
    Examples:
      moorline events --since 2h --guest web01
      moorline events --follow --volume 3f2a
      moorline events --output json | jq '.[] | select(.outcome != "done")'
    """
    with ended_by_its_reader() if follow else nullcontext():
        for found in _told(given, follow, since, volume or "", guest):
            if given.is_data and not follow:
                given.tell(found, "")
                return
            for entry in found:
                say(json.dumps(entry.to_dict()) if given.output == "json" else line(entry))


def _told(
    given: Common, follow: bool, since: float, volume: str, guest: str | None
) -> Iterator[Sequence[EventLogEntry]]:
    # If the agent that answers ends, the next one, or the file, is asked.
    ends: tuple[type[MoorlineError], ...] = (Unavailable,) if follow else ()
    if follow and is_whole(volume):
        ends += (NotFound,)  # it may be one that is still to come
    last = 0
    while True:
        with given.open(own=False) as moorline, suppress(*ends):
            while True:
                found = moorline.maintenance.events(
                    after=last, since=since, volume=volume, **told(guest=guest)
                )
                yield found
                if not follow:
                    return
                last = found[-1].id if found else last
                time.sleep(_POLL_SECONDS)
        time.sleep(_POLL_SECONDS)


def line(entry: EventLogEntry) -> str:
    """An entry as one line of text."""
    when = datetime.fromtimestamp(entry.at).strftime("%Y-%m-%d %H:%M:%S")
    what = [when, f"{entry.step or '-':<10}", entry.outcome]
    if entry.volume:
        what.append(f"volume {entry.volume} on {entry.guest}")
    elif entry.guest:
        what.append(f"guest {entry.guest}")
    if entry.seconds:
        what.append(f"({entry.seconds:.2f} s)")
    if entry.message:
        what.append(f"{entry.message}")
    if entry.times > 1:
        what.append(f"({entry.times} times by now)")
    return "  ".join(what)
