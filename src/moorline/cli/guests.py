"""launch, start, remove: guests themselves."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moorline.cli import vsphere
from moorline.cli.attachments import read_connection
from moorline.cli.common import Common, common, timeout_option
from moorline.errors import Refused
from moorline.model import Format
from moorline.ports.guests import NO_DOCUMENT, Document, Hardware

if TYPE_CHECKING:
    from moorline.ports.results import GuestOutcome

_UNITS = {"M": 1, "G": 1 << 10, "T": 1 << 20}


class Memory(click.ParamType):  # type: ignore[type-arg]
    """``2G``, ``512M``; a bare number is MiB."""

    name = "size"

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        found = re.fullmatch(r"([1-9][0-9]{0,8})([MGT]?)(?:i?B)?", str(value), re.IGNORECASE)
        if not found:
            self.fail(f"{value!r} is no size; such as 2G or 512M", param, ctx)
        return int(found[1]) * _UNITS[found[2].upper() or "M"]


@click.command()
@click.argument("name")
@click.option(
    "--boot",
    metavar="FILE.json|URL|PATH",
    help="The volume to boot from: a connection_info (a file *.json, or - for standard input),"
    " or a URL or path as of `moorline attach`.",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["raw", "qcow2", "ploop"]),
    help="Format of the file at URL or PATH; it is never guessed.",
)
@click.option(
    "--connection",
    "connections",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="One more volume, as a connection_info. Can be repeated.",
)
@click.option("--memory", type=Memory(), metavar="SIZE", help="Such as 2G, the default.")
@click.option("--vcpus", type=click.IntRange(min=1), metavar="N", help="Default: 2.")
@click.option(
    "--network",
    default="",
    metavar="NAME",
    help="A network of libvirt's, or none. Default: libvirt's `default` if it is up, else none.",
)
@click.option(
    "--template",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A <domain> of libvirt's that says all but the name, the UUID and the hard disks."
    " Without <mac> in it, it is good for many guests.",
)
@click.option(
    "--no-start",
    is_flag=True,
    help="Only make the guest and its disks. vSphere: make a volume, held by a machine that"
    " never runs.",
)
@vsphere.launch_options
@timeout_option
@common
def launch(
    given: Common,
    name: str,
    boot: str | None,
    format_: Format | None,
    connections: tuple[Path, ...],
    memory: int | None,
    vcpus: int | None,
    network: str,
    template: Path | None,
    no_start: bool,
    timeout: float,
    **on_vsphere: Any,
) -> None:
    """Make the guest NAME, which boots from a volume, and start it.

    Killed or failed on the way, the same command goes on where it stood. The
    guest is marked as launched by Moorline, so that `remove` may take it.

    On vSphere, the machine gets a disk of its own, from --image or --empty, on
    the datastore that suits it best.

    \b
    Examples:
      moorline launch web01 --boot boot.json --memory 2G --vcpus 2
      moorline launch web01 --boot quobyte://reg1/volume/web01.qcow2 --format qcow2
      moorline launch web01 --boot boot.json --connection data.json --template web.xml
      moorline launch web01 --image disk.vmdk --datastore-regex 'vvol.*' --memory 2G
    """
    if _on_vsphere(given):
        _refuse_misplaced(
            "libvirt's guests",
            boot=boot,
            format=format_,
            connection=connections,
            vcpus=vcpus,
            network=network,
            template=template,
        )
        vsphere.launch(
            given, name, start=not no_start, timeout=timeout, memory=memory, **on_vsphere
        )
        return
    _refuse_misplaced("vSphere", **on_vsphere)
    if boot is None:
        raise click.UsageError("give --boot, the volume that the guest boots from")
    in_file = boot == "-" or boot.endswith(".json")
    if in_file and format_ is not None:
        raise click.UsageError("--format belongs to URL|PATH: a connection bears its own")
    hardware = Hardware(memory, vcpus, network, _text(template) if template else NO_DOCUMENT)
    with given.open(own=True, patience=timeout, first=True) as moorline:
        outcome = moorline.guests.launch(
            name,
            read_connection(Path(boot)) if in_file else boot,
            format=format_,
            connections=[read_connection(path) for path in connections],
            hardware=hardware,
            start=not no_start,
            timeout=timeout,
            progress=given.progress,
        )
    _tell(given, outcome, f"guest {name} {_state(outcome)}")


@click.command()
@click.argument("guest")
@timeout_option
@common
def start(given: Common, guest: str, timeout: float) -> None:
    """Make the volumes of GUEST (name or id) ready, and start it.

    \b
    Example:
      moorline start web01
    """
    if _on_vsphere(given):
        vsphere.start(given, guest, timeout=timeout)
        return
    with given.open(own=True, patience=timeout) as moorline:
        outcome = moorline.guests.start(guest, timeout=timeout, progress=given.progress)
    _tell(given, outcome, f"guest {outcome.guest} {_state(outcome)}")


@click.command()
@click.argument("guest")
@click.option("--force", is_flag=True, help="Cut its power instead of asking it to shut down.")
@click.option("--any", "any_", is_flag=True, help="Even if it was not launched by Moorline.")
@timeout_option
@common
def remove(given: Common, guest: str, force: bool, any_: bool, timeout: float) -> None:
    """Stop GUEST, take its volumes away from this host, and forget it.

    The volumes and their data stay. On vSphere, volumes must be detached before,
    and the machine's own disk goes with it.

    \b
    Examples:
      moorline remove web01 --timeout 120
      moorline remove web01 --force
    """
    if _on_vsphere(given):
        _refuse_misplaced("libvirt's guests", force=force, any=any_)
        vsphere.remove(given, guest, timeout=timeout)
        return
    with given.open(own=True, patience=timeout) as moorline:
        outcome = moorline.guests.remove(
            guest, force=force, any=any_, timeout=timeout, progress=given.progress
        )
    told = f"guest {outcome.guest} is removed" if outcome else f"there is no guest {guest}"
    _tell(given, outcome, told)


def _on_vsphere(given: Common) -> bool:
    return given.settings().hypervisor.startswith("vsphere:")


def _refuse_misplaced(whose: str, **options: Any) -> None:
    """Refuse options that would be silently ignored."""
    if found := [name for name, value in options.items() if value]:
        option = found[0].replace("_", "-")
        raise click.UsageError(f"--{option} is for {whose}")


def _state(outcome: GuestOutcome) -> str:
    return "runs" if outcome.running else "is defined"


def _text(path: Path) -> Document:
    try:
        return Document(path.read_text())
    except OSError as e:
        raise Refused(f"the template {path} cannot be read: {e.strerror}") from e
    except UnicodeDecodeError as e:
        raise Refused(f"the template {path} is not UTF-8 text") from e


def _tell(given: Common, outcome: GuestOutcome | None, told: str) -> None:
    disks = [
        f"volume {view.volume} is {view.seen} as {view.device}"
        for view in (outcome.attachments if outcome else ())
    ]
    given.tell(outcome, "\n".join([told, *disks]))
