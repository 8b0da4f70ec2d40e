"""status, version, help: what is here."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from importlib.metadata import version as version_of
from typing import Any

import click

from moorline.cli import agent_socket
from moorline.cli.common import Common, common
from moorline.cli.output import is_as_wanted
from moorline.errors import MoorlineError, Unavailable
from moorline.local_api import wire
from moorline.ports.api import Api


@click.command()
@common
def status(given: Common) -> None:
    """Tell who keeps this host, its hypervisor and its state, and what is not as wanted.

    Changes nothing, and exits 0 whatever it finds: `moorline doctor` finds what
    is wrong.

    \b
    Examples:
      moorline status
      moorline status --output json | jq .not_as_wanted
    """
    told: dict[str, Any] = {"version": version_of("moorline"), "agent": None}
    try:
        with given.open(own=False) as moorline:
            told |= who(given, moorline)
            told |= _what(moorline)
    except MoorlineError as e:
        told |= {"problem": e.message, "hint": e.hint}
    given.tell(told, _lines(told))


@click.command()
@common
def version(given: Common) -> None:
    """Print the version of Moorline, and of the agent.

    \b
    Example:
      moorline version --output json
    """
    told = {
        "moorline": version_of("moorline"),
        "agent": None,
        "python": platform.python_version(),
    }
    with suppress(Unavailable):
        socket = agent_socket.find(str(given.state_dir) if given.state_dir else None)
        if socket is not None:
            told["agent"] = wire.about(socket)["version"]
    text = f"moorline {told['moorline']}"
    if told["agent"]:
        text += f", agent {told['agent']}"
    given.tell(told, f"{text}, Python {told['python']}")


def _begun(context: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """The commands that could come next."""
    command: click.Command | None = context.find_root().command
    for name in context.params.get("command") or ():
        command = command.get_command(context, name) if isinstance(command, click.Group) else None
    names = command.list_commands(context) if isinstance(command, click.Group) else []
    return [name for name in names if name.startswith(incomplete)]


@click.command("help")
@click.argument("command", nargs=-1, shell_complete=_begun)
@click.pass_context
def help_(context: click.Context, command: tuple[str, ...]) -> None:
    """Print the help of Moorline, or of COMMAND.

    \b
    Example:
      moorline help attach
    """
    root = context.find_root()
    root.command.main([*command, "--help"], prog_name=root.info_name, standalone_mode=False)


def who(given: Common, moorline: Api) -> dict[str, Any]:
    """Whose the state is: the agent's, or of nobody who runs; host, hypervisor."""
    about = getattr(moorline, "about", None)  # a client of an agent has it
    if about is not None:
        its = about()
        agent = {"version": its["version"], "pid": its.get("pid")}
        return {"agent": agent, **{k: its[k] for k in ("host", "hypervisor", "state_dir")}}
    from moorline import config

    settings = given.settings()
    return {
        "host": config.host_name(settings, remember=False),
        "hypervisor": config.hypervisor_of(settings),
        "state_dir": str(settings.state_dir),
        "state_is": _owner(settings.state_dir),
    }


def _owner(state_dir: os.PathLike[str]) -> str:
    try:
        found = os.stat(state_dir)  # noqa: PTH116 - of a path that may not be there
    except OSError:
        return "not there yet"
    return "ours" if found.st_uid == os.geteuid() else f"user {found.st_uid}'s"


def _what(moorline: Api) -> dict[str, Any]:
    views = moorline.attachments.list()
    told: dict[str, Any] = {
        "attachments": len(views),
        "not_as_wanted": sum(not is_as_wanted(view) for view in views),
    }
    try:
        guests = moorline.guests.all()
    except MoorlineError as e:
        return {**told, "guests": None, "problem": e.message, "hint": e.hint}
    return {**told, "guests": len(guests), "running": sum(guest.running for guest in guests)}


def _lines(told: dict[str, Any]) -> str:
    agent = told["agent"]
    facts = [
        ("version", told["version"]),
        ("agent", f"runs, version {agent['version']}" if agent else "none answers"),
    ]
    if agent and agent["version"] != told["version"]:
        facts.append(("", "restart the agent: it is of another version"))
    if "host" in told:
        whose = f" ({told['state_is']})" if "state_is" in told else ""
        facts += [
            ("host", told["host"]),
            ("hypervisor", told["hypervisor"]),
            ("state", f"{told['state_dir']}{whose}"),
        ]
    if told.get("guests") is not None:
        facts.append(("guests", f"{told['guests']}, {told['running']} of them running"))
    if "attachments" in told:
        odd = told["not_as_wanted"]
        left = f"{odd} not as wanted: moorline list --not-as-wanted" if odd else "all as wanted"
        facts.append(("attachments", f"{told['attachments']}, {left}"))
    if "problem" in told:
        facts.append(("problem", told["problem"]))
    return "\n".join(f"{name + ':' if name else '':<13} {text}" for name, text in facts)
