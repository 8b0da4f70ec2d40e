"""launch, start, remove: guests themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from moorline.cli.common import (
    Common,
    common,
    dry_run_option,
    guest_argument,
    timeout_option,
    told,
    vouch_option,
)
from moorline.cli.connection import read_connection
from moorline.cli.facade import storage_from_here
from moorline.cli.hypervisor_options import HypervisorOptionsCommand, asked, chosen_driver, typed
from moorline.cli.luks_key import key_options, with_key
from moorline.cli.name_completion import FilePath
from moorline.cli.typed_disk_options import asked as disk_options_asked
from moorline.cli.typed_disk_options import of_a_launch
from moorline.errors import MoorlineError
from moorline.ports import LaunchingDriver
from moorline.ports.guests import Launching

if TYPE_CHECKING:
    from moorline.ports import HypervisorDriver
    from moorline.ports.guest_results import GuestOutcome

_VOLUMES = (
    click.Option(
        ["--boot", "boot_volume"],
        metavar="FILE.json|URL|PATH",
        help="The volume to boot from: a connection_info (a file *.json, or - for standard input),"
        " or a URL, a path or cinder:VOLUME as of `moorline attach`.",
    ),
    click.Option(
        ["--format"],
        type=click.Choice(["raw", "qcow2", "ploop", "luks"]),
        help="Format of the file at URL or PATH; it is never guessed.",
    ),
    *key_options(),
    click.Option(
        ["--connection", "connections"],
        multiple=True,
        type=FilePath(),
        metavar="FILE",
        help="One more volume, as a connection_info. Can be repeated.",
    ),
    *of_a_launch(),
)


def _launching(driver: type[HypervisorDriver] | None) -> Launching | None:
    return driver.launching if isinstance(driver, LaunchingDriver) else None


def _for_launch(driver: type[HypervisorDriver]) -> Sequence[click.Parameter] | None:
    launching = _launching(driver)
    if launching is None:
        return None
    return [*(_VOLUMES if launching.from_volumes else ()), *typed(launching.options)]


def _for_removal(driver: type[HypervisorDriver]) -> Sequence[click.Parameter] | None:
    launching = _launching(driver)
    return None if launching is None else typed(launching.removal)


@click.command(cls=HypervisorOptionsCommand, offer=_for_launch)
@click.argument("name")
@click.option("--no-start", is_flag=True, help="Only make the guest and its disks.")
@vouch_option
@timeout_option
@dry_run_option
@common
def launch(
    given: Common,
    name: str,
    no_start: bool,
    vouch: str,
    timeout: float,
    dry_run: bool,
    **values: Any,
) -> None:
    """Make the guest NAME, and start it.

    On libvirt it boots from a volume. On vSphere it gets a disk of its own, on
    the datastore that suits that best. The options are those of the hypervisor
    at hand: with --hypervisor URI, --help has those of another.

    Killed or failed on the way, the same command goes on where it stood. The
    guest is marked as launched by Moorline, so that `remove` may take it.

    \b
    Examples:
      moorline launch web01 --boot boot.json --memory 2G --vcpus 2
      moorline launch web01 --boot quobyte://reg1/volume/web01.qcow2 --format qcow2
      moorline launch web01 --boot boot.json --connection data.json --template web.xml
      moorline launch web01 -c vsphere://vcenter.example --image disk.vmdk --memory 2G
    """
    launching = _launching(chosen_driver())
    what: dict[str, Any] = {}
    if launching is not None:
        if launching.from_volumes:
            what |= _volumes(values)
        if hardware := asked(launching.options, values):
            what["hardware"] = hardware
    what |= told(dry_run=dry_run, vouch=vouch or None)
    with given.open(own=not dry_run, patience=timeout, first=True) as moorline:
        outcome = moorline.guests.launch(
            name,
            start=not no_start,
            timeout=timeout,
            progress=given.progress,
            **what,
        )
    if dry_run:
        given.tell(outcome, _foreseen(outcome))
        return
    text = f"guest {name} {_state(outcome)}"
    if outcome.disks and not outcome.running:
        disks = ", ".join(outcome.disks)
        text = f"volume {name} is made: {disks}, held by the machine {name}, which is not started"
    elif outcome.disks:
        text = f"{text}, with {', '.join(outcome.disks)}"
    _tell(given, outcome, text)


@click.command()
@guest_argument
@vouch_option
@timeout_option
@dry_run_option
@common
def start(given: Common, guest: str, vouch: str, timeout: float, dry_run: bool) -> None:
    """Make the volumes of GUEST (name or id) ready, and start it.

    \b
    Example:
      moorline start web01
    """
    asked = told(dry_run=dry_run, vouch=vouch or None)
    with given.open(own=not dry_run, patience=timeout) as moorline:
        outcome = moorline.guests.start(guest, timeout=timeout, progress=given.progress, **asked)
    if dry_run:
        given.tell(outcome, _foreseen(outcome))
        return
    _tell(given, outcome, f"guest {outcome.guest} {_state(outcome)}")


@click.command(cls=HypervisorOptionsCommand, offer=_for_removal)
@guest_argument
@timeout_option
@dry_run_option
@common
def remove(given: Common, guest: str, timeout: float, dry_run: bool, **how: bool) -> None:
    """Stop GUEST, take its volumes away from this host, and forget it.

    Says what it is about to stop and to take away before it does.
    The volumes and their data stay. A guest that was made with a disk of its
    own (vSphere) must have no volumes any more, and that disk goes with it.
    GUEST is its name, its id, or the beginning of its id. A whole id that is
    not there is success; anything else that is not known is not, nor is a
    guest that a fleet may have on another host.

    \b
    Examples:
      moorline remove web01 --timeout 120
      moorline remove web01 --force
    """
    asked = told(**how)
    with given.open(own=not dry_run, patience=timeout) as moorline:
        remove = partial(moorline.guests.remove, guest, timeout=timeout, **asked)
        if dry_run:
            given.tell(outcome := remove(dry_run=True), _foreseen(outcome))
            return
        if not given.is_data:
            with suppress(MoorlineError):  # what it meets, removing meets as well
                given.warn(_foreseen(remove(dry_run=True), "will"))
        outcome = remove(progress=given.progress)
    text = f"guest {outcome.guest} is removed" if outcome else f"there is no guest {guest}"
    _tell(given, outcome, text)


def _volumes(values: Mapping[str, Any]) -> dict[str, Any]:
    """The volume to boot from, and more. Raises UsageError, Refused."""
    boot: str | None = values["boot_volume"]
    if boot is None:
        raise click.UsageError("give --boot, the volume that the guest boots from")
    in_file = boot == "-" or boot.endswith(".json")
    if in_file and values["format"] is not None:
        raise click.UsageError("--format belongs to URL|PATH: a connection bears its own")
    options = disk_options_asked(values)
    volume = read_connection(boot) if in_file else storage_from_here(boot)
    return {
        "boot": with_key(volume, values["luks_key_file"], on_stdin=boot == "-"),
        "format": values["format"],
        "connections": [read_connection(str(path)) for path in values["connections"]],
        **({"options": options} if options.asked() else {}),
    }


def _foreseen(outcome: GuestOutcome | None, would: str = "would") -> str:
    """What is to come, a line each; '': nothing."""
    if outcome is None or not outcome.steps:
        return "nothing to do" if would == "would" else ""
    words = dict.fromkeys(outcome.steps)
    lines = [f"{would} {', '.join(words)}: {outcome.guest}" + " (it runs)" * outcome.running]
    for view in outcome.attachments:
        device = f" ({view.device})" if view.device else ""
        lines.append(f"  volume {view.volume}{device}, {view.storage}")
    return "\n".join(lines)


def _state(outcome: GuestOutcome) -> str:
    return "runs" if outcome.running else "is defined"


def _tell(given: Common, outcome: GuestOutcome | None, told: str) -> None:
    disks = [
        f"volume {view.volume} is {view.seen}" + (f" as {view.device}" if view.device else "")
        for view in (outcome.attachments if outcome else ())
    ]
    given.tell(outcome, "\n".join([told, *disks]))
