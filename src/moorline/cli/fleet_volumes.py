"""fleet attach, fleet detach: which volumes a fleet's guests have, whichever host they are on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moorline.cli.attachments import (
    connections_option,
    format_option,
    id_option,
    several_named,
    tell_each,
)
from moorline.cli.common import Common, common, dry_run_option, timeout_option
from moorline.cli.fleet_queries import FleetName, directory_option
from moorline.cli.luks_key import key_option, with_key
from moorline.cli.name_completion import FileOrUrl
from moorline.cli.typed_disk_options import asked, demand_of_one, disk_options
from moorline.core.name_lookup import is_whole
from moorline.errors import MoorlineError, NotFound, Refused
from moorline.model import Format

if TYPE_CHECKING:
    from moorline.fleet.results import FleetOutcome

    Call = Callable[[], FleetOutcome]


@click.command()
@click.argument("guest", type=FleetName("guest"))
@click.argument("volume_urls", nargs=-1, metavar="[URL|PATH]...", type=FileOrUrl())
@connections_option
@format_option
@id_option
@key_option
@disk_options(without=["target"])
@timeout_option
@dry_run_option
@directory_option
@common
def attach(
    given: Common,
    guest: str,
    volume_urls: tuple[str, ...],
    connections: tuple[Path, ...],
    format_: Format | None,
    volume: str | None,
    luks_key_file: Path | None,
    timeout: float,
    dry_run: bool,
    directory: Path,
    **of_disk: Any,
) -> None:
    """Make a volume a disk of GUEST (name or id), whichever host that is on.

    Exits 3 if another guest has the volume, and says which. Several are attached one
    after the other, with one result each, as of `moorline attach`.

    \b
    Examples:
      moorline fleet attach web01 --connection quobyte.json
      moorline fleet attach web01 nfs://nas/e/a.raw nfs://nas/e/b.raw --format raw
    """
    from moorline import fleet_wiring

    volumes = several_named(volume_urls, connections, format_)
    options = asked(of_disk)
    if len(volumes) > 1:
        key = "--luks-key-file" if luks_key_file else ""
        demand_of_one(options, "--volume" if volume else "", key)
    on_stdin = Path("-") in connections
    volumes = [with_key(each, luks_key_file, on_stdin=on_stdin) for each in volumes]
    settings = given.settings()
    # Each is read before one of them is attached: what cannot be read changes nothing.
    all_wanted = [
        fleet_wiring.wanted_of_fleet(settings, what, format_, volume, options) for what in volumes
    ]
    with fleet_wiring.open_fleet(directory) as fleet:
        do = partial(fleet.attach, guest, timeout=timeout, progress=given.progress, dry_run=dry_run)
        calls = [(wanted.key.volume, partial(do, wanted)) for wanted in all_wanted]
        _tell_each(given, guest, calls, "attached to", dry_run=dry_run)


@click.command()
@click.argument("guest", type=FleetName("guest"))
@click.argument("volume", nargs=-1, required=True, metavar="VOLUME...", type=FleetName("volume"))
@timeout_option
@dry_run_option
@directory_option
@common
def detach(
    given: Common,
    guest: str,
    volume: tuple[str, ...],
    timeout: float,
    dry_run: bool,
    directory: Path,
) -> None:
    """Take a volume from GUEST, whichever host that is on.

    VOLUME is its id, or the beginning of a UUID. A whole UUID that is not there is
    success, as its host told of its disks last; all else that is not known exits 4. What a
    host has by itself for GUEST, or somebody else plugged, exits 7, and says what to run.
    Several are taken one after the other, as of `moorline detach`.

    \b
    Example:
      moorline fleet detach web01 3f2a0c1e-5d0b-4c5e-9a37-0f6f0d2b8a11
    """
    from moorline import fleet_wiring

    with fleet_wiring.open_fleet(directory) as fleet:

        def take(name: str, *, dry_run: bool) -> FleetOutcome:
            outcome = fleet.detach(
                guest, name, timeout=timeout, progress=given.progress, dry_run=dry_run
            )
            if not (outcome.steps or is_whole(name)):
                raise NotFound(
                    f"no volume of {outcome.guest} is {name}", hint="moorline fleet list"
                )
            return outcome

        # Which are meant is settled first: of two that begin alike, the other one would be meant
        # once the first is gone.
        call = _of_what_is_meant if len(volume) > 1 and not dry_run else _call
        calls = [(name, call(take, name, dry_run)) for name in volume]
        _tell_each(given, guest, calls, "detached from", dry_run=dry_run)


def _call(take: Callable[..., FleetOutcome], name: str, dry_run: bool) -> Call:
    return partial(take, name, dry_run=dry_run)


def _of_what_is_meant(take: Callable[..., FleetOutcome], name: str, dry_run: bool) -> Call:
    try:
        return _call(take, take(name, dry_run=True).volume, dry_run)
    except MoorlineError as e:
        return partial(_raised, e)


def _raised(error: MoorlineError) -> FleetOutcome:
    raise error


def _tell_each(
    given: Common,
    guest: str,
    calls: Sequence[tuple[str, Call]],
    done: str,
    *,
    dry_run: bool,
) -> None:
    """As :func:`tell`, of one or of several: those have a line, or an item of a list, each."""

    def text(outcome: FleetOutcome) -> str:
        now = done if outcome.steps or done == "attached to" else "no disk of"
        return f"volume {outcome.volume} is {now} {outcome.guest}"

    if len(calls) == 1:
        outcome = calls[0][1]()
        tell(given, outcome, dry_run, text(outcome))
        return

    def possible(call: Call) -> FleetOutcome:
        outcome = call()
        if dry_run and outcome.in_the_way:
            raise Refused(outcome.in_the_way[0])
        return outcome

    said = _would if dry_run else text
    tell_each(given, guest, [(name, partial(possible, call)) for name, call in calls], said)


def _would(outcome: FleetOutcome) -> str:
    return f"would {', '.join(outcome.steps)}" if outcome.steps else "nothing to do"


def tell(given: Common, outcome: FleetOutcome, dry_run: bool, done: str) -> None:
    """Print what came of an order, or would: what is in the way of a dry run raises Refused."""
    if not dry_run:
        given.tell(outcome, done)
        return
    ways = (f"in the way: {why}" for why in outcome.in_the_way)
    given.tell(outcome, "\n".join([_would(outcome), *ways]))
    if outcome.in_the_way:
        raise Refused(outcome.in_the_way[0])
