"""attach, detach, set, forget, sweep: the commands that change something."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from moorline.cli.checked_values import Seconds
from moorline.cli.common import (
    Common,
    F,
    common,
    dry_run_option,
    timeout_option,
    told,
    volume_argument,
    vouch_option,
    wait_option,
)
from moorline.cli.connection import read_connection
from moorline.cli.facade import storage_from_here
from moorline.cli.luks_key import key_option, with_key
from moorline.cli.name_completion import FileOrUrl, FilePath, GuestName, LabelName, VolumeName
from moorline.cli.output import failed, say, table
from moorline.cli.output import outcome as told_outcome
from moorline.cli.typed_disk_options import asked, demand_of_one, disk_options
from moorline.deadline import DEFAULT_TIMEOUT_SECONDS
from moorline.errors import Failed, MoorlineError
from moorline.exit_codes import exit_code
from moorline.local_api.http_errors import to_problem
from moorline.model import Format, Level
from moorline.ports.results import Outcome

T = TypeVar("T")

format_option = click.option(
    "--format",
    "format_",
    type=click.Choice(["raw", "qcow2", "ploop", "luks"]),
    help="Format of the file at URL or PATH; it is never guessed.",
)
id_option = click.option(
    "--volume", metavar="ID", help="The volume's id, where the connection has none."
)
connections_option = click.option(
    "--connection",
    "connections",
    multiple=True,
    type=FilePath(allow_dash=True),
    metavar="FILE",
    help="Cinder's connection_info as JSON, - for standard input. Can be repeated.",
)
_VOLUME: tuple[Callable[..., Any], ...] = (
    click.argument("volume_url", required=False, metavar="[URL|PATH]", type=FileOrUrl()),
    click.option(
        "--connection",
        type=FilePath(allow_dash=True),
        metavar="FILE",
        help="Cinder's connection_info as JSON, - for standard input.",
    ),
    format_option,
    id_option,
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
    return None if volume_url is None else storage_from_here(volume_url)


def tell_each(
    given: Common,
    guest: str,
    calls: Sequence[tuple[str, Callable[[], T]]],
    text: Callable[[T], str],
) -> None:
    """Tell what *calls*, with the volume's name each, come to: a line or an item of a list each.

    One that fails does not stop the others; the command ends as the first of those does.
    """
    if len(calls) == 1:
        result = calls[0][1]()
        given.tell(_value(result), text(result))
        return
    values: list[Any] = []
    code = 0
    for name, call in calls:
        try:
            result = call()
        except MoorlineError as e:
            # A URL is left out: it may hold a password.
            values.append({"problem": to_problem(e.about("" if "/" in name else name, guest))})
            its = exit_code(e) if given.is_data else failed(e, given.output)
            code = code or its
        else:
            values.append(_value(result))
            if not given.is_data:
                say(text(result))
    given.tell(values, "")
    if code:
        sys.exit(code)


Detached = tuple[str, Outcome | None]
"""What was typed, and what it came to."""


def _call(detach: Callable[..., Outcome | None], name: str) -> Callable[[], Detached]:
    return lambda: (name, detach(name))


def _of_what_is_meant(detach: Callable[..., Outcome | None], name: str) -> Callable[[], Detached]:
    """As :func:`_call`, of the volume that *name* means now; or what raises why it means none.

    That is settled before the first of several has gone: of two that begin alike the other one
    would be meant by then.
    """
    try:
        foreseen = detach(name, dry_run=True)
    except MoorlineError as e:
        return partial(_raised, e)
    return _call(detach, foreseen.view.volume if foreseen else name)


def _raised(error: MoorlineError) -> Detached:
    raise error


def _value(result: Any) -> Any:
    """What programs are told of a result, which may have its volume's name beside it."""
    return result[1] if isinstance(result, tuple) else result


def several_named(
    urls: Sequence[str], connections: Sequence[Path], format_: Format | None
) -> list[Mapping[str, Any] | str]:
    """As :func:`named`, of one or more volumes. Raises UsageError, Refused."""
    if bool(urls) == bool(connections):
        raise click.UsageError("give either URL|PATH or --connection FILE")
    found = [named(url, None, format_) for url in urls]
    found += [named(None, file, format_) for file in connections]
    return [each for each in found if each is not None]


@click.command()
@click.argument("guest", type=GuestName())
@click.argument("volume_urls", nargs=-1, metavar="[URL|PATH]...", type=FileOrUrl())
@connections_option
@format_option
@key_option
@id_option
@click.option(
    "--label", type=LabelName(), metavar="LABEL", help="What it belongs to, as of `moorline apply`."
)
@disk_options()
@click.option(
    "--level",
    type=click.Choice(["connected", "attached"]),
    default="attached",
    show_default=True,
    help="connected: make it reachable on the host only.",
)
@click.option(
    "--timeout",
    type=Seconds(),
    metavar="SECONDS",
    help="How long to go on trying; default: 60, or until the same step fails for about 10.",
)
@vouch_option
@wait_option
@dry_run_option
@common
def attach(
    given: Common,
    guest: str,
    volume_urls: tuple[str, ...],
    connections: tuple[Path, ...],
    format_: Format | None,
    luks_key_file: Path | None,
    volume: str | None,
    label: str | None,
    level: str,
    timeout: float | None,
    vouch: str,
    wait: bool,
    dry_run: bool,
    **of_disk: Any,
) -> None:
    """Make a volume a disk of GUEST (name or id), now and after reboots.

    Several are attached one after the other, with one result each: one that
    fails does not stop the others, and its exit code is that of the command.

    \b
    Examples:
      moorline attach web01 --connection quobyte.json
      openstack … -f json | moorline attach web01 --connection -
      moorline attach web01 quobyte://reg1,reg2/volume/disk.qcow2 --format qcow2
      moorline attach web01 /srv/disks/data.raw --format raw --bus scsi
      moorline attach web01 cinder:data
      moorline attach web01 secret.luks --format luks --luks-key-file key
      moorline attach web01 a.raw b.raw --format raw --wait=false
    """
    volumes = several_named(volume_urls, connections, format_)
    options = asked(of_disk)
    if len(volumes) > 1:
        key = "--luks-key-file" if luks_key_file else ""
        demand_of_one(options, "--volume" if volume else "", key)
    on_stdin = "-" in map(str, connections)
    volumes = [with_key(each, luks_key_file, on_stdin=on_stdin) for each in volumes]
    patience = DEFAULT_TIMEOUT_SECONDS if timeout is None else timeout
    with given.open(own=not dry_run, patience=patience, first=True) as moorline:
        attach = partial(
            moorline.attachments.attach,
            guest,
            format=format_,
            volume=volume,
            level=Level[level.upper()],
            options=options,
            timeout=timeout,
            progress=given.progress,
            dry_run=dry_run,
            **told(vouch=vouch or None, label=label),
            **_waiting(wait),
        )
        calls = [(volume or "", partial(attach, what)) for what in volumes]
        tell_each(given, guest, calls, lambda outcome: told_outcome(outcome, dry_run, wait=wait))


@click.command()
@click.argument("guest", type=GuestName())
@click.argument("volume", nargs=-1, required=True, metavar="VOLUME...", type=VolumeName())
@timeout_option
@wait_option
@dry_run_option
@common
def detach(
    given: Common,
    guest: str,
    volume: tuple[str, ...],
    timeout: float,
    wait: bool,
    dry_run: bool,
) -> None:
    """Take a volume away from GUEST; its link goes with the last user.

    VOLUME is its id, the beginning of its id, its device in GUEST, or the URL
    or path that was typed to attach it. A whole id that is not there is
    success; anything else that is not known is not, nor is what a fleet may
    have on another host. The volume's data is never touched. Several are
    taken away one after the other, as of attach.

    \b
    Examples:
      moorline detach web01 3f2a
      moorline detach web01 vdb vdc
      moorline detach web01 /srv/disks/data.raw --timeout 300
    """
    with given.open(own=not dry_run, patience=timeout) as moorline:
        detach = partial(
            moorline.attachments.detach,
            guest,
            timeout=timeout,
            progress=given.progress,
            dry_run=dry_run,
            **_waiting(wait),
        )

        def text(name: str, outcome: Outcome | None) -> str:
            if outcome is None:
                return f"volume {name} is no disk of {guest}"
            return told_outcome(outcome, dry_run, wait=wait)

        several = len(volume) > 1 and not dry_run
        call = _of_what_is_meant if several else _call
        calls = [(name, call(detach, name)) for name in volume]
        tell_each(given, guest, calls, lambda found: text(*found))


@click.command("set")
@click.argument("guest", type=GuestName())
@volume_argument
@disk_options(live=True)
@timeout_option
@dry_run_option
@common
def set_(
    given: Common, guest: str, volume: str, timeout: float, dry_run: bool, **of_disk: Any
) -> None:
    """Change how much GUEST may ask of a volume, at once and for good.

    What is not said stays as it is; 0 takes a limit away. A limit of all
    requests excludes one of reads or writes.

    \b
    Examples:
      moorline set web01 3f2a --iops 500
      moorline set web01 vdb --iops 0 --read-iops 300 --write-bytes-sec 20M
    """
    with given.open(own=not dry_run, patience=timeout) as moorline:
        outcome = moorline.attachments.set(
            guest,
            volume,
            asked(of_disk),
            timeout=timeout,
            progress=given.progress,
            **told(dry_run=dry_run),
        )
    given.tell(outcome, told_outcome(outcome, dry_run))


@click.command()
@volume_argument
@click.option(
    "--guest", type=GuestName(), metavar="GUEST", help="Only the attachment for this guest."
)
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
@dry_run_option
@common
def sweep(given: Common, dry_run: bool) -> None:
    """Bring every attachment as far as it goes without waiting.

    For a timer where no agent runs, and after a crash. Exits 5 and lists what
    is not as wanted if anything is left.

    \b
    Examples:
      moorline sweep --output json
      moorline sweep --dry-run
    """
    with given.open(own=not dry_run, patience=10.0) as moorline:
        left = moorline.attachments.sweep(given.progress, **told(dry_run=dry_run))
    if dry_run:
        due = [f"would {each.next}: volume {each.volume} of {each.guest}" for each in left]
        given.tell(left, "\n".join(due) or "nothing to do")
        return
    given.tell(left, table(left) if left else "")
    if left:
        count = len(left)
        raise Failed(f"{count} attachment{'s are' if count > 1 else ' is'} not as wanted yet")


def _waiting(wait: bool) -> dict[str, Any]:
    return {} if wait else {"wait": False}
