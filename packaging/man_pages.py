"""Write a man page for each command, from its own help: python packaging/man_pages.py DIRECTORY.

click-man does the work. It would cut the line that says what a command is, and leave out what
stands below the options, the exit codes.
"""

from __future__ import annotations

import os
import sys
import time
from importlib.metadata import version

import click
from click_man.core import write_man_pages

from moorline.cli.commands import COMMANDS, main


def _whole(command: click.Command, summary: str | None = None) -> None:
    text = (command.help or "").replace("\b", "").strip()
    command.short_help = summary or " ".join(text.partition("\n\n")[0].split())
    command.help = f"{command.help}\n\n{command.epilog}" if command.epilog else command.help
    if isinstance(command, click.Group):
        with click.Context(command) as context:
            for name in command.list_commands(context):
                each = command.get_command(context, name)
                assert each is not None, f"{name} is listed"
                _whole(each, COMMANDS[name][1] if command is main else None)


def _write(directory: str) -> None:
    built = time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", time.time())))
    _whole(main)
    write_man_pages(
        "moorline",
        main,
        version=f"Moorline {version('moorline')}",
        target_dir=directory,
        date=time.strftime("%Y-%m-%d", built),
    )


if __name__ == "__main__":
    _write(sys.argv[1])
