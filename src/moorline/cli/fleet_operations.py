"""What a person has a fleet do: where its guests shall be."""

from __future__ import annotations

import getpass
import json
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from moorline.cli.checked_values import Seconds, persons_word
from moorline.cli.common import Common, F, common, dry_run_option, timeout_option
from moorline.cli.fleet_queries import FleetName, directory_option
from moorline.cli.fleet_volumes import attach, detach, tell
from moorline.cli.name_completion import FilePath
from moorline.cli.output import say
from moorline.errors import Failed

if TYPE_CHECKING:
    from moorline.fleet.fleet import Fleet


def _order_options(command: F) -> F:
    """In which order the guests of a host go."""
    first = click.option(
        "--first",
        type=FleetName("guest"),
        multiple=True,
        metavar="GUEST",
        help="That it goes before the others; once for each, in their order.",
    )
    at_once = click.option(
        "--at-once",
        type=click.IntRange(1, 100),
        metavar="N",
        help="How many are on their way, or starting, at a time; else 4.",
    )
    return first(at_once(command))


@click.command()
@click.argument("guest", type=FleetName("guest"))
@click.argument("host", required=False, type=FleetName("host"))
@click.option("--give-up", is_flag=True, help="Have it stay where it is.")
@timeout_option
@dry_run_option
@directory_option
@common
def migrate(
    given: Common,
    guest: str,
    host: str | None,
    give_up: bool,
    timeout: float,
    dry_run: bool,
    directory: Path,
) -> None:
    """Bring GUEST to HOST with its volumes, live if it runs.

    It is where it was, or at HOST, and nothing of it is left at the other one. --give-up
    waits, too: it exits 0 if GUEST stays or was not on its way, and 3 if it has gone by then.

    \b
    Examples:
      moorline fleet migrate web01 compute3
      moorline fleet migrate web01 --give-up
    """
    from moorline import fleet_wiring

    if (host is None) is not give_up:
        raise click.UsageError("give either HOST or --give-up")
    with fleet_wiring.open_fleet(directory) as fleet:
        if host is None:
            outcome = fleet.give_up(
                guest,
                f"{_me()} gave it up",
                timeout=timeout,
                progress=given.progress,
                dry_run=dry_run,
            )
            done = "stays" if outcome.steps else "was not on its way: it is"
        else:
            outcome = fleet.migrate(
                guest, host, by=_me(), timeout=timeout, progress=given.progress, dry_run=dry_run
            )
            done = "is"
    tell(given, outcome, dry_run, f"{outcome.guest} {done} on {outcome.host}")


@click.command()
@click.argument("host", type=FleetName("host"))
@_order_options
@timeout_option
@dry_run_option
@directory_option
@common
def drain(
    given: Common,
    host: str,
    first: tuple[str, ...],
    at_once: int | None,
    timeout: float,
    dry_run: bool,
    directory: Path,
) -> None:
    """Bring all guests of HOST elsewhere, and let none come until it is uncordoned.

    \b
    Examples:
      moorline fleet drain compute7 --timeout 3600
      moorline fleet drain compute7 --first db01 --first web01 --at-once 1
    """
    from moorline import fleet_wiring

    with fleet_wiring.open_fleet(directory) as fleet:
        outcome = fleet.drain(
            host,
            first=first,
            at_once=at_once,
            timeout=timeout,
            progress=given.progress,
            dry_run=dry_run,
        )
    tell(given, outcome, dry_run, f"{host} has no guests")


@click.command()
@click.argument("host", type=FleetName("host"))
@dry_run_option
@directory_option
@common
def cordon(given: Common, host: str, dry_run: bool, directory: Path) -> None:
    """Let no guest come to HOST.

    \b
    Example:
      moorline fleet cordon compute7
    """
    from moorline import fleet_wiring

    with fleet_wiring.open_fleet(directory) as fleet:
        outcome = fleet.cordon(host, dry_run=dry_run)
    tell(given, outcome, dry_run, f"{host} is cordoned")


@click.command()
@click.argument("host", type=FleetName("host"))
@dry_run_option
@directory_option
@common
def uncordon(given: Common, host: str, dry_run: bool, directory: Path) -> None:
    """Let guests come to HOST again, and none go because it was to be drained.

    \b
    Example:
      moorline fleet uncordon compute7
    """
    from moorline import fleet_wiring

    with fleet_wiring.open_fleet(directory) as fleet:
        outcome = fleet.uncordon(host, dry_run=dry_run)
    tell(given, outcome, dry_run, f"{host} is not cordoned")


@click.command()
@click.argument("host", type=FleetName("host"))
@click.option(
    "--fenced",
    callback=persons_word,
    metavar="WHY",
    help="That it cannot write any more, and who knows that.",
)
@click.option(
    "--fence-agent",
    type=FilePath(exists=True, dir_okay=False),
    metavar="PROGRAM",
    help="One of the fence-agents package, or its like, that switches it off now.",
)
@click.option(
    "--fence-options",
    type=FilePath(exists=True, dir_okay=False),
    metavar="FILE",
    help="What the agent is told, name=value a line, without the action.",
)
@_order_options
@timeout_option
@dry_run_option
@directory_option
@common
def evacuate(
    given: Common,
    host: str,
    fenced: str,
    fence_agent: Path | None,
    fence_options: Path | None,
    first: tuple[str, ...],
    at_once: int | None,
    timeout: float,
    dry_run: bool,
    directory: Path,
) -> None:
    """Have the guests of a dead HOST run elsewhere.

    HOST must be silent for half a minute. That is no proof that it is dead: it may be cut
    off, and writing. A word that is not true gives its volumes two writers.

    \b
    Examples:
      moorline fleet evacuate compute7 --fenced "power cut by N.N., ticket 4711"
      moorline fleet evacuate compute7 --fence-agent /usr/sbin/fence_ipmilan --fence-options bmc7
    """
    from moorline import fleet_wiring

    if bool(fenced) is (fence_agent is not None):
        raise click.UsageError("give either --fenced WHY or --fence-agent PROGRAM")
    proof = fleet_wiring.proof_of_fencing(fenced or None, fence_agent, fence_options)
    with fleet_wiring.open_fleet(directory) as fleet:
        outcome = fleet.evacuate(
            host,
            proof,
            by=_me(),
            first=first,
            at_once=at_once,
            timeout=timeout,
            progress=given.progress,
            dry_run=dry_run,
        )
    tell(given, outcome, dry_run, f"{host} is evacuated")


@click.command()
@directory_option
@click.option("--every", type=Seconds(0.1), default=1.0, help="Seconds.", hidden=True)
@click.option(
    "--socket",
    type=FilePath(dir_okay=False),
    metavar="PATH",
    help="Also serve the fleet's API on this Unix socket.",
)
@click.option(
    "--group",
    default="moorline",
    show_default=True,
    help="Whose members may use the socket, besides root and this user.",
)
@click.option("--openapi", is_flag=True, help="Print the API's OpenAPI document, and end.")
@common
def controller(
    given: Common, directory: Path, every: float, socket: Path | None, group: str, openapi: bool
) -> None:
    """Drive the fleet's moves until stopped. One controller leads, the others stand by.

    \b
    Examples:
      moorline fleet controller
      moorline fleet controller --socket /run/moorline/fleet.sock
      curl --unix-socket /run/moorline/fleet.sock http://localhost/v1/hosts
    """
    from moorline import fleet_wiring
    from moorline.agent import fleet_server

    if openapi:
        say(json.dumps(fleet_server.document(), indent=2))
        return
    parse = partial(fleet_wiring.wanted_of_fleet, given.settings())

    def beside(fleet: Fleet) -> AbstractContextManager[None]:
        return fleet_server.serving(fleet, parse, socket, group) if socket else nullcontext()

    fleet_wiring.run_fleet_controller(
        directory, every, lambda text: click.echo(text, err=True), beside
    )


OPERATIONS = (attach, detach, migrate, drain, cordon, uncordon, evacuate, controller)


def _me() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError) as e:
        raise Failed(f"it cannot be told who asks: {e}") from e
