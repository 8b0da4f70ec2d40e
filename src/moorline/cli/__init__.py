"""The command line: parse, call the façade, print."""

from __future__ import annotations

import click

from moorline.cli.adopt import adopt, release
from moorline.cli.agent import agent
from moorline.cli.attachments import attach, detach, forget, sweep
from moorline.cli.completion import completion
from moorline.cli.doctor import abort, doctor, explain, repair
from moorline.cli.events import events
from moorline.cli.extend import extend
from moorline.cli.guests import launch, remove, start
from moorline.cli.hook import hook
from moorline.cli.look import list_, show
from moorline.cli.vsphere import datastores, relocate

EPILOG = """
\b
Exit codes:
  0  done, or already so       5  failed; the wish is kept, repeat to go on
  1  a defect of Moorline      6  uncertain: it may have happened, look again
  2  wrong usage               7  not ours: a person must decide
  3  refused; nothing changed  8  busy: another command owns this host's state
  4  no such guest or volume   9  denied: permission is missing
                              10  doctor found something
"""


@click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="moorline")
def main() -> None:
    """Attach storage volumes to virtual machines, and keep them attached.

    Nothing needs to run or be set up first. Repeating a command is success.
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
    datastores,
    completion,
):
    main.add_command(command)
