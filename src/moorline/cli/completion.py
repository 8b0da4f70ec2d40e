"""Shell completion."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from moorline.cli.output import say_or_exit


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of SHELL.

    \b
    Example:
      moorline completion bash > /etc/bash_completion.d/moorline
    """
    script = get_completion_class(shell)
    assert script is not None, "click knows the three shells that it lets through"
    root = context.find_root().command
    say_or_exit(script(root, {}, "moorline", "_MOORLINE_COMPLETE").source())
