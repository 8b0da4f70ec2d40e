"""hook: what libvirt runs before it starts a guest (https://libvirt.org/hooks.html)."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import click

from moorline.cli.common import Common, common, dry_run_option, timeout_option
from moorline.cli.groups import Group
from moorline.cli.name_completion import FilePath
from moorline.cli.output import complain
from moorline.deadline import Deadline
from moorline.errors import Denied, Failed, MoorlineError, NotOurs, Refused, Unavailable, Uncertain
from moorline.model import ALIAS_PREFIX

if TYPE_CHECKING:
    from moorline.ports.api import Api

DIRECTORY = Path("/etc/libvirt/hooks/qemu.d")
"""Where libvirt 6.5 and newer look for hooks beside /etc/libvirt/hooks/qemu."""
NAME = "moorline"
_SIGN = "# Written by `moorline hook install`."
SCRIPT = """\
#!/bin/sh
{sign} Makes the links ready that a guest needs, before it starts, and
# asks the host's fleet whether it may. libvirt waits for this: nothing in it may ask for a guest.
# https://libvirt.org/hooks.html
case "$2/$3" in
    prepare/begin) set -- ;;
    migrate/begin) set -- --arriving ;;
    *) exit 0 ;;
esac
[ -x {python} ] || exit 0  # Moorline was removed: it holds no guest up
exec {command} "$@"
"""

_directory = click.option(
    "--directory",
    type=FilePath(file_okay=False),
    default=DIRECTORY,
    show_default=True,
    help="Where libvirt looks for hooks of QEMU's guests.",
)


@click.group(cls=Group)
def hook() -> None:
    """Have libvirt make a guest's links ready whenever it starts the guest.

    Without it, a guest whose share is not mounted does not start with
    `virsh start` or at boot; `moorline start` needs no hook.

    \b
    Examples:
      moorline hook install
      moorline hook uninstall
    """


@hook.command()
@_directory
@dry_run_option
@common
def install(given: Common, directory: Path, dry_run: bool) -> None:
    """Write the hook. Restart libvirtd if it had no hooks before.

    It keeps --state-dir and --config-file, if they are given.

    \b
    Examples:
      moorline hook install
      moorline hook install --config-file /etc/nova/nova.conf --dry-run
    """
    path = directory / NAME
    command = _command(given)
    script = SCRIPT.format(sign=_SIGN, python=shlex.quote(command[0]), command=shlex.join(command))
    told = {"path": str(path), "script": script, "dry_run": dry_run}
    try:
        _refuse_other(path)
        if dry_run:
            given.tell(told, f"would write {path}:\n{script.rstrip()}")
            return
        directory.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{NAME}.{os.getpid()}")
        fresh.write_text(script)
        fresh.chmod(0o755)
        fresh.replace(path)
    except OSError as e:
        raise _unwritable(path, e) from e
    restart = "restart libvirtd (virtqemud) if it had no hooks for QEMU when it started"
    given.tell(told, f"{path} is installed\n{restart}")


@hook.command()
@_directory
@dry_run_option
@common
def uninstall(given: Common, directory: Path, dry_run: bool) -> None:
    """Remove the hook."""
    path = directory / NAME
    told = {"path": str(path), "dry_run": dry_run}
    try:
        _refuse_other(path)
        if dry_run:
            there = path.exists()
            given.tell(told, f"would remove {path}" if there else f"{path} is not there")
            return
        path.unlink(missing_ok=True)
    except OSError as e:
        raise _unwritable(path, e) from e
    given.tell(told, f"{path} is not there any more")


@hook.command()
@click.option("--arriving", is_flag=True, help="A copy of it is about to come from another host.")
@timeout_option
@common
def run(given: Common, arriving: bool, timeout: float) -> None:
    """What the hook runs: make the links ready of the guest whose XML is on standard input.

    A host of a fleet asks first whether the guest may start here.
    """
    deadline = Deadline(timeout)
    domain = _domain(sys.stdin.read())
    guest, ours = _guest(domain), _may_need_us(domain)
    try:
        with given.open(own=False, first=True) as moorline:
            _demand_permission(moorline, guest, ours=ours, arriving=arriving)
            # If Moorline starts the guest, its process owns this host now. It waits for libvirt,
            # which waits for us, and it has made the links before.
            if arriving or not moorline.guests.unready(guest):
                return
    except _Forbidden as e:
        raise e.error from None
    except MoorlineError as e:
        if ours:
            raise
        complain(f"moorline: {e}; the guest has no disk of Moorline's, and starts")
        return
    with given.open(own=True, patience=timeout) as moorline:
        moorline.guests.ready(guest, timeout=deadline.left(), progress=given.progress)


class _Forbidden(Exception):
    """The host's fleet does not let the guest start, whatever disks it has."""

    def __init__(self, error: MoorlineError) -> None:
        super().__init__(str(error))
        self.error = error


def _demand_permission(moorline: Api, guest: str, *, ours: bool, arriving: bool) -> None:
    try:
        moorline.guests.permit(guest, ours=ours, arriving=arriving)
    except (Refused, Failed, Uncertain) as e:  # what may be forbidden does not start either
        raise _Forbidden(e) from e


def _domain(xml: str) -> ET.Element:
    try:
        return ET.fromstring(xml)  # noqa: S314 - libvirt's own output
    except ET.ParseError as e:
        raise Refused(f"standard input is not a <domain> of libvirt's: {e}") from e


def _may_need_us(domain: ET.Element) -> bool:
    """Whether a disk bears a mark like ours. Our errors must not stop guests without one."""
    marks = [alias.get("name", "") for alias in domain.iterfind("devices/disk/alias")]
    return any(mark.startswith(ALIAS_PREFIX) for mark in marks)


def _guest(domain: ET.Element) -> str:
    """The guest's UUID: its name may have changed since its volumes were attached."""
    guest = domain.findtext("uuid")
    if not guest:
        raise Refused("standard input is a <domain> without a UUID")
    return guest


def _command(given: Common) -> list[str]:
    words = [sys.executable, "-m", "moorline.cli", "hook", "run", "--quiet"]
    if given.state_dir:
        words += ["--state-dir", str(given.state_dir.absolute())]
    for file in given.config_files:
        words += ["--config-file", str(file.absolute())]
    return words


def _refuse_other(path: Path) -> None:
    if path.exists() and _SIGN not in path.read_text(errors="replace"):
        raise NotOurs(f"{path} was not written by `moorline hook install`")


def _unwritable(path: Path, error: OSError) -> Denied | Unavailable:
    family = Denied if isinstance(error, PermissionError) else Unavailable
    return family(f"{path} cannot be changed: {error.strerror}")
