"""Completion: click's, with scripts that keep whole what has a colon, a comma or a blank."""

from __future__ import annotations

import os

import click
from click import shell_completion as clicks
from click.shell_completion import CompletionItem, split_arg_string

from moorline.cli.output import say_or_exit

_BASH = """\
%(complete_func)s() {
    local type value
    COMPREPLY=()
    while IFS=',' read -r type value; do
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) printf -v value %%q "$value"; COMPREPLY+=("$value") ;;
        esac
    done < <(env COMP_LINE="${COMP_LINE:0:COMP_POINT}" COMP_WORDBREAKS="$COMP_WORDBREAKS" \\
        %(complete_var)s=bash_complete "$1")
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""
_LOOP = "    for type key descr"
"""In click's script for zsh: where the completions are read."""
_FISH = """\
function %(complete_func)s
    set -l option (string match --regex -- '^--[^=]*=' (commandline -t))
    for completion in (env %(complete_var)s=fish_complete COMP_WORDS=(commandline -cp) \\
            COMP_CWORD=(commandline -t) %(prog_name)s)
        set -l told (string split --max 1 "," -- $completion)
        switch $told[1]
            case dir
                printf '%%s\\n' "$option"(__fish_complete_directories "$told[2]")
            case file
                printf '%%s\\n' "$option"(__fish_complete_path "$told[2]")
            case plain
                printf '%%s\\n' "$option$told[2]"
        end
    end
end

complete --no-files --command %(prog_name)s --arguments "(%(complete_func)s)"
"""


@clicks.add_completion_class
class _Bash(clicks.BashComplete):
    """Reads the line itself: bash ends a word at a colon, of which URLs have some."""

    source_template = _BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ["COMP_LINE"]
        words = split_arg_string(line)
        last = words.pop() if line[-1:].strip() else ""
        return words[1:], last

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        items = super().get_completions(args, incomplete)
        if ":" in os.environ["COMP_WORDBREAKS"]:
            typed = incomplete.partition("=")[2] if incomplete.startswith("--") else incomplete
            kept = typed[: typed.rfind(":") + 1]  # bash replaces what comes after it
            for item in items:
                item.value = item.value.removeprefix(kept)
        return items


@clicks.add_completion_class
class _Zsh(clicks.ZshComplete):
    """Completes the value of ``--option=``, rather than putting it in the option's place."""

    # By -U what stands before the equals sign is replaced, too.
    source_template = clicks.ZshComplete.source_template.replace(" -U", "").replace(
        _LOOP, f"    [[ $PREFIX == --*=* ]] && compset -P '*='\n\n{_LOOP}"
    )


@clicks.add_completion_class
class _Fish(clicks.FishComplete):
    """Keeps what comes after a comma."""

    source_template = _FISH


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of SHELL.

    \b
    Example:
      moorline completion bash > /etc/bash_completion.d/moorline
    """
    script = clicks.get_completion_class(shell)
    assert script is not None, "click knows the three shells that it lets through"
    root = context.find_root().command
    say_or_exit(script(root, {}, "moorline", "_MOORLINE_COMPLETE").source())
