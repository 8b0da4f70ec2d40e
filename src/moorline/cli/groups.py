"""Groups of commands, whose help says of each what it does to the end."""

from __future__ import annotations

import click

from moorline.cli.commands import write_commands


class Group(click.Group):
    """A command that has commands."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As click's, but with whole sentences."""
        write_commands(
            formatter,
            ((name, command.help or "") for name, command in self.commands.items()),
        )
