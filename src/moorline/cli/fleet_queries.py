"""What a person asks of a fleet: where its guests and volumes are, and what they wait for."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from moorline.cli.common import Common, common
from moorline.cli.events import line, since_when
from moorline.cli.name_completion import FilePath, Items, begun
from moorline.cli.output import age, aligned, ended_by_its_reader, say
from moorline.errors import MoorlineError, Unavailable

if TYPE_CHECKING:
    from moorline.fleet.fleet import Fleet
    from moorline.fleet.results import FleetEvent, FleetExplanation, FleetView, HostView

_FOLLOW_SECONDS = 2.0
_DIRECTORY = Path("/etc/moorline/fleet-admin")
directory_option = click.option(
    "--directory",
    type=FilePath(file_okay=False),
    default=_DIRECTORY,
    show_default=True,
    help="Where the credentials of a controller, or of the fleet's root, are.",
)


class FleetName(click.ParamType):  # type: ignore[type-arg]
    """An argument for a host, a guest or a volume of the fleet, or for one of several kinds."""

    def __init__(self, *kinds: str) -> None:
        self.name = "|".join(kinds)
        self._kinds = kinds

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
        """The fleet's own, where its credentials are at hand; volumes of the guest that is typed.

        Where etcd is silent, TAB waits some seconds for it.
        """
        from moorline import fleet_wiring

        directory = ctx.params.get("directory") or _DIRECTORY
        items: Items = []
        with suppress(MoorlineError), fleet_wiring.open_fleet(directory) as fleet:
            for kind in self._kinds:
                items += _named(fleet, kind, ctx.params.get("guest"))
        return begun(items, incomplete)


def _named(fleet: Fleet, kind: str, guest: str | None) -> Items:
    if kind == "host":
        return [CompletionItem(view.host, help=_state(view)) for view in fleet.hosts()]
    if kind == "guest":
        return [CompletionItem(view.guest, help=f"on {view.host}") for view in fleet.guests()]
    views = fleet.attachments(None, guest)
    return [CompletionItem(v.volume, help=f"{v.guest} on {v.host}") for v in views]


@click.command()
@directory_option
@common
def hosts(given: Common, directory: Path) -> None:
    """List the fleet's hosts: when each was heard, and what is on it.

    \b
    Example:
      moorline fleet hosts
    """
    from moorline import fleet_wiring

    with fleet_wiring.open_fleet(directory) as fleet:
        views = fleet.hosts()
    rows = [(v.host, _state(v), _heard(v), str(len(v.guests)), str(v.volumes)) for v in views]
    given.tell(views, aligned([("HOST", "STATE", "HEARD", "GUESTS", "VOLUMES"), *rows]))


@click.command()
@directory_option
@common
def guests(given: Common, directory: Path) -> None:
    """List the fleet's guests, and where each is.

    \b
    Example:
      moorline fleet guests
    """
    from moorline import fleet_wiring

    with fleet_wiring.open_fleet(directory) as fleet:
        views = fleet.guests()
    rows = [(v.guest, v.host, v.seen or "-", v.moving_to or "-", v.note) for v in views]
    given.tell(views, aligned([("GUEST", "HOST", "SEEN", "GOES TO", ""), *rows]))


@click.command("list")
@click.argument("guest", required=False, type=FleetName("guest"))
@click.option("--host", type=FleetName("host"), metavar="HOST", help="Only those of this host.")
@click.option("--not-as-wanted", is_flag=True, help="Only what is not as it is wanted.")
@directory_option
@common
def list_(
    given: Common, guest: str | None, host: str | None, not_as_wanted: bool, directory: Path
) -> None:
    """List the attachments of all hosts: what is wanted, and what each host says of it.

    Of GUEST (name or id), or all. Also what hosts have by themselves: that says so.

    \b
    Examples:
      moorline fleet list web01
      moorline fleet list --host compute7 --not-as-wanted
    """
    from moorline import fleet_wiring

    with fleet_wiring.open_fleet(directory) as fleet:
        found = fleet.attachments(host, guest)
    views = [
        view
        for view in found
        if not not_as_wanted or view.error or (view.wanted and view.seen != view.wanted)
    ]
    rows = [(v.volume, v.guest, v.host, v.wanted or "-", v.seen or "-", v.message) for v in views]
    given.tell(views, aligned([("VOLUME", "GUEST", "HOST", "WANTED", "SEEN", ""), *rows]))


@click.command()
@click.argument("volume", type=FleetName("volume"))
@directory_option
@common
def show(given: Common, volume: str, directory: Path) -> None:
    """Show one volume: which guests have it, on which hosts, and what is in the way.

    \b
    Example:
      moorline fleet show 3f2a
    """
    from moorline import fleet_wiring

    with fleet_wiring.open_fleet(directory) as fleet:
        views = fleet.show(volume)
    given.tell(views, "\n".join(map(_shown, views)))


@click.command()
@click.argument("name", metavar="GUEST|VOLUME", type=FleetName("guest", "volume"))
@directory_option
@common
def explain(given: Common, name: str, directory: Path) -> None:
    """Say how a guest and its volumes stand, or one volume: what waits, and what to do.

    \b
    Examples:
      moorline fleet explain web01
      moorline fleet explain 3f2a
    """
    from moorline import fleet_wiring

    with fleet_wiring.open_fleet(directory) as fleet:
        explained = fleet.explain(name)
    given.tell(explained, "\n".join(_explained(each) for each in explained))


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Go on with what happens from now.")
@click.option("--since", callback=since_when, metavar="AGE|DATE", help="Such as 10m, 2h or a date.")
@click.option("--host", type=FleetName("host"), metavar="HOST", help="Of this host alone.")
@click.option(
    "--guest",
    type=FleetName("guest"),
    metavar="GUEST",
    help="Of this guest alone (name or id).",
)
@click.option("--volume", type=FleetName("volume"), metavar="VOLUME", help="Of this volume alone.")
@directory_option
@common
def events(
    given: Common,
    follow: bool,
    since: float,
    host: str | None,
    guest: str | None,
    volume: str | None,
    directory: Path,
) -> None:
    """Tell what was done and seen on all hosts, and decided about them, the latest last.

    Each host tells the last 64 entries of its own event log, within some seconds; moorline
    events has the rest there. Times are those of each host's clock. With --follow, JSON is one
    object a line.

    \b
    Examples:
      moorline fleet events --since 2h
      moorline fleet events --follow --host compute7
    """
    from moorline import fleet_wiring

    def look() -> list[FleetEvent]:
        return fleet.events(host, guest=guest or "", volume=volume or "", since=since)

    with fleet_wiring.open_fleet(directory) as fleet:
        told = look()
        if not follow:
            width = max((len(each.host) for each in told), default=0)
            given.tell(told, "\n".join(f"{each.host:<{width}}  {line(each)}" for each in told))
            return
        with ended_by_its_reader():
            seen: set[FleetEvent] = set()
            while True:
                for event in told:
                    if event not in seen:
                        is_json = given.output == "json"
                        say(
                            json.dumps(event.to_dict())
                            if is_json
                            else f"{event.host}  {line(event)}"
                        )
                seen = set(told)
                time.sleep(_FOLLOW_SECONDS)
                with suppress(Unavailable):
                    told = look()


QUERIES = (hosts, guests, list_, show, explain, events)


def _shown(it: FleetView) -> str:
    what = f"{it.volume} on {it.guest} ({it.host}): "
    if not it.wanted:  # its host has it by itself, which the message says
        return what + it.message
    told = f"{what}{it.wanted}, seen {it.seen or 'not so yet'}"
    return f"{told}\n  {it.message}" if it.message else told


def _explained(it: FleetExplanation) -> str:
    what = f"Volume {it.volume} on {it.guest}" if it.volume else f"Guest {it.guest}"
    wanted = f"wanted {it.wanted or 'nothing yet'}, seen {it.seen or 'not so yet'}"
    told = [f"{what} ({it.host}): {wanted}."]
    if it.waits_for:
        heard = f"heard {age(it.heard)} ago" if it.heard else "never heard"
        told += [f"  It waits for: {it.waits_for} ({it.host} was {heard}).", f"  Next: {it.next}"]
    if it.note:
        told.append(f"  Its last move came to nothing: {it.note}.")
    return "\n".join(told)


def _state(view: HostView) -> str:
    states = [
        *([] if view.heard else ["enrolled, never heard"]),
        *(["left"] if view.left else []),
        *(["fenced"] if view.fenced else []),
        *(["draining"] if view.draining else ["cordoned"] if view.cordoned else []),
        *([f"cannot read {view.unread} of its volumes"] if view.unread else []),
    ]
    return ", ".join(states) or "ready"


def _heard(view: HostView) -> str:
    return f"{age(view.heard)} ago" if view.heard else "never"
