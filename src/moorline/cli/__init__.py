"""The command line: parse, call the façade, print."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import click

from moorline.cli.adopt import adopt, release
from moorline.cli.agent import agent
from moorline.cli.attachments import attach, detach, forget, sweep
from moorline.cli.common import EXIT_INTERRUPTED, complain
from moorline.cli.completion import completion
from moorline.cli.datastores import datastores, relocate
from moorline.cli.doctor import abort, doctor, explain, repair
from moorline.cli.events import events
from moorline.cli.extend import extend
from moorline.cli.guests import launch, remove, start
from moorline.cli.hook import hook
from moorline.cli.look import list_, show
from moorline.cli.output import FORMATS, dump
from moorline.cli.state import state

EPILOG = """
\b
Exit codes:
  0  done, or already so       5  failed; the attachment is kept, repeat to go on
  1  a defect of Moorline      6  uncertain: it may have happened, look again
  2  wrong usage               7  not ours: a person must decide
  3  refused; nothing changed  8  busy: another command owns this host's state
  4  no such guest or volume   9  denied: permission is missing
                              10  doctor found something
                              11  unavailable: no answer, and nothing was recorded
"""


class Commands(click.Group):
    """Tells wrong usage as all errors are told: as JSON or YAML to whoever asked for that."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        words = sys.argv[1:] if args is None else args
        run = partial(super().main, words, prog_name, complete_var, standalone_mode=False, **extra)
        if not standalone_mode:
            return run()
        try:
            code: object = run()
        except click.Abort:
            complain("moorline: interrupted")
            sys.exit(EXIT_INTERRUPTED)
        except click.ClickException as e:
            output = asked_output(words)
            if output == "text":
                e.show()
            else:
                complain(dump(_usage(e), output))
            sys.exit(e.exit_code)
        sys.exit(code if isinstance(code, int) else 0)


def asked_output(words: Sequence[str]) -> str:
    """The ``--output`` among *words*, which may be wrong in any other way."""
    for word, following in pairwise([*words, ""]):
        if word == "--":
            break
        for option in ("--output", "-o"):
            if word == option and following in FORMATS:
                return following
            value = word.removeprefix(option).removeprefix("=")
            if word.startswith(option) and value in FORMATS:
                return value
    return "text"


def _usage(error: click.ClickException) -> dict[str, Any]:
    context = getattr(error, "ctx", None)
    hint = f"{context.command_path} --help" if context else "moorline --help"
    return {
        "error": "usage",
        "code": error.exit_code,
        "message": error.format_message(),
        "hint": hint,
    }


@click.group(cls=Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="moorline")
def main() -> None:
    """Attach storage volumes to virtual machines, and keep them attached.

    Nothing needs to run or be set up first. Repeating a command is success
    (detach: with the volume's whole id).
    """


for command in (
    attach,
    detach,
    extend,
    relocate,
    list_,
    show,
    forget,
    sweep,
    launch,
    start,
    remove,
    hook,
    agent,
    events,
    explain,
    doctor,
    repair,
    abort,
    adopt,
    release,
    state,
    datastores,
    completion,
):
    main.add_command(command)
