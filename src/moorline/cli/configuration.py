"""config: the options, their values, and whence they are."""

from __future__ import annotations

import sys
from itertools import groupby
from typing import TYPE_CHECKING

import click

from moorline.cli.common import Common, common
from moorline.cli.groups import Group
from moorline.cli.output import aligned
from moorline.exit_codes import EXIT_FOUND

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from moorline.config import Effective, Settings

_COLUMNS = ("SECTION", "OPTION", "VALUE", "WHENCE")


@click.group(cls=Group)
def config() -> None:
    """Show the options and whence they are, check them, or write an example."""


@config.command()
@click.option("--set", "is_set", is_flag=True, help="Only what is not as by default.")
@common
def show(given: Common, is_set: bool) -> None:
    """Show the value of each option, and whence it is. Passwords are left out.

    \b
    Example:
      moorline config show --set
    """
    found = [each for each in effective(given) if not (is_set and each.whence == "default")]
    rows = [(f"[{e.group}]", e.name, e.value or "-", e.whence) for e in found]
    given.tell(found, aligned([_COLUMNS, *rows]))


@config.command()
@common
def check(given: Common) -> None:
    """See that the configuration can be read, and that what is installed can use it.

    Tells what looks like a mistyped option, too. Asks no storage and no guest.
    Exits 3 if it cannot be read, 10 if something is found.

    \b
    Example:
      moorline config check --config-file /etc/nova/nova.conf
    """
    from moorline.config_check import misconfigured, mistyped

    effective(given)
    settings = given.settings()
    found = [*mistyped(given.config_files), *misconfigured(settings), *_of_the_agent(settings)]
    given.tell({"problems": found}, "\n".join(found) or "the configuration can be used")
    if found:
        sys.exit(EXIT_FOUND)


def _of_the_agent(settings: Settings) -> Iterator[str]:
    """Why the agent would not start with its options, a text each."""
    from moorline.errors import MoorlineError

    try:
        from moorline.agent.agent import Options
    except ModuleNotFoundError:
        return  # none can run here
    from moorline.fleet_wiring import memory_for_guests

    checks = (
        lambda: Options.of(settings),
        lambda: memory_for_guests(settings.agent["agent_fleet_memory"]),
    )
    for check in checks:
        try:
            check()
        except MoorlineError as e:
            yield str(e)


@config.command()
@common
def example(given: Common) -> None:
    """Print a moorline.conf with every option, its default and what it is for.

    \b
    Example:
      moorline config example > moorline.conf
    """
    from moorline import config, installed

    options = [*config.OPTIONS, *installed.options()]
    lines = ["# Every option of Moorline, with its default. Take the # away to set one."]
    options.sort(key=lambda option: option.group)
    for group, members in groupby(options, lambda option: option.group):
        lines += ["", f"[{group}]"]
        for option in members:
            lines += ["", f"# {option.help}", f"#{option.name} = {option.default}".rstrip()]
    given.tell("\n".join(lines), "\n".join(lines))


def effective(given: Common) -> Sequence[Effective]:
    """The value of each option as the command was told to read it. Raises Refused."""
    from moorline import config, installed
    from moorline.cli import typed_files

    typed_files.demand_home()
    return config.effective(
        given.config_files,
        installed.options,
        state_dir=given.state_dir,
        hypervisor=given.hypervisor,
    )
