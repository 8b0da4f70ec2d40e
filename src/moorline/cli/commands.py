"""``moorline``: the group of all commands, which loads the one that is called."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import redirect_stdout
from functools import partial
from importlib import import_module
from io import StringIO
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

EPILOG = """
\b
Exit codes:
  0  done, or already so       5  failed; the attachment is kept, repeat to go on
  1  a defect of Moorline      6  uncertain: it may have happened, look again
  2  wrong usage               7  not ours: a person must decide
  3  refused; nothing changed  8  busy: another command owns this host's state
  4  no such guest or volume   9  denied: permission is missing
                              10  doctor or diff found something
                              11  unavailable: no answer, and nothing was recorded
"""
_ANY_LENGTH = 1 << 16
_COMPLETE = "_MOORLINE_COMPLETE"
"""In the environment: a shell asks what could come next."""
_HELP = frozenset({"--help", "-h", "--version"})
_OUTPUT = re.compile(r"--output(?==|$)|-[qvw]*o")
"""The option, also behind flags that share its dash."""
COMMANDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "abort": (
            "doctor:abort",
            "End the FUSE connection of a share that hangs, so that it can be mounted anew.",
        ),
        "adopt": (
            "adopt:adopt",
            "Take over a disk of GUEST that somebody else plugged, Nova for example.",
        ),
        "agent": (
            "agent:agent",
            "Own this host's state, and keep its attachments true until stopped.",
        ),
        "apply": (
            "apply:apply",
            "Attach what a file declares; what is as declared already is left alone.",
        ),
        "diff": (
            "apply:diff",
            "Tell what `moorline apply` would change. Exits 10 if there is something.",
        ),
        "export": (
            "apply:export",
            "Write the attachments of this host, or of GUEST, as `moorline apply` reads them.",
        ),
        "attach": (
            "attachments:attach",
            "Make a volume a disk of GUEST (name or id), now and after reboots.",
        ),
        "config": (
            "configuration:config",
            "Show the options and whence they are, check them, or write an example.",
        ),
        "support-bundle": (
            "support:support_bundle",
            "Write to FILE (*.tar.gz) what helps others to see what is wrong here.",
        ),
        "completion": ("completion:completion", "Print the completion script of SHELL."),
        "datastores": (
            "datastores:datastores",
            "List the datastores of a vCenter that a disk can go to, the best first.",
        ),
        "detach": (
            "attachments:detach",
            "Take a volume away from GUEST; its link goes with the last user.",
        ),
        "disks": (
            "list_show:disks",
            "List every disk of every guest, or of GUEST: whose it is, how large, where.",
        ),
        "doctor": (
            "doctor:doctor",
            "Find what is not as it should be on this host, with the next command for each.",
        ),
        "events": ("events:events", "Tell what was done and seen on this host, the latest last."),
        "explain": (
            "doctor:explain",
            "Say how a volume stands: which step waits, for what, for how long, what to do.",
        ),
        "extend": ("extend:extend", "Let GUEST see, while it runs, that a volume became larger."),
        "fleet": (
            "fleet:fleet",
            "Set up a fleet, many hosts whose state is in one etcd, and give it orders.",
        ),
        "forget": (
            "attachments:forget",
            "Drop an attachment whose disk and link are provably gone.",
        ),
        "hook": (
            "hook:hook",
            "Have libvirt make a guest's links ready whenever it starts the guest.",
        ),
        "launch": ("guests:launch", "Make the guest NAME, and start it."),
        "list": (
            "list_show:list_",
            "List the attachments of this host: what is wanted, what is seen.",
        ),
        "release": (
            "adopt:release",
            "Give a volume's disk and link back as they are: Moorline forgets them.",
        ),
        "relocate": (
            "datastores:relocate",
            "Move a volume of GUEST to another DATASTORE while the guest has it.",
        ),
        "remove": (
            "guests:remove",
            "Stop GUEST, take its volumes away from this host, and forget it.",
        ),
        "repair": (
            "doctor:repair",
            "Take away links that no attachment and no guest needs, and empty mount points.",
        ),
        "set": (
            "attachments:set_",
            "Change how much GUEST may ask of a volume, at once and for good.",
        ),
        "show": (
            "list_show:show",
            "Show one volume: its link, who else holds it, the last error, what comes next.",
        ),
        "start": ("guests:start", "Make the volumes of GUEST (name or id) ready, and start it."),
        "state": (
            "state:state",
            "Tell whose the state directory is, or let it be another host's or machine's.",
        ),
        "status": (
            "status:status",
            "Tell who keeps this host, its hypervisor and its state, and what is not as wanted.",
        ),
        "ui": (
            "ui:ui",
            "Serve a page that shows this host in a browser, and changes nothing.",
        ),
        "version": ("status:version", "Print the version of Moorline, and of the agent."),
        "wait": ("wait:wait", "Wait until VOLUME is attached, connected or detached."),
        "help": ("status:help_", "Print the help of Moorline, or of COMMAND."),
        "sweep": ("attachments:sweep", "Bring every attachment as far as it goes without waiting."),
    }
)
"""Where each command is, and the first paragraph of its help."""


class _Commands(MutableMapping[str, click.Command]):
    """The commands by name, each loaded when it is first asked for."""

    def __init__(self) -> None:
        self._loaded: dict[str, click.Command] = {}

    def __getitem__(self, name: str) -> click.Command:
        if name not in self._loaded:
            module, _, attribute = COMMANDS[name][0].partition(":")
            self._loaded[name] = getattr(import_module(f"moorline.cli.{module}"), attribute)
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)

    def __setitem__(self, name: str, command: click.Command) -> None:
        raise TypeError("a command has a line in COMMANDS")

    def __delitem__(self, name: str) -> None:
        raise TypeError("a command has a line in COMMANDS")


def write_commands(formatter: click.HelpFormatter, told: Iterable[tuple[str, str]]) -> None:
    """Write each command's name and the first sentence of its help; click would cut that off."""
    rows = [
        (name, click.Command(name, help=help).get_short_help_str(_ANY_LENGTH).removesuffix("."))
        for name, help in sorted(told)
    ]
    with formatter.section("Commands"):
        formatter.write_dl(rows)


class Lazy(click.Group):
    """Loads the command that is called, and none for its own help.

    Reports wrong usage like all errors: as JSON or YAML if that was asked for.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(commands=_Commands(), **options)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As click's, but from :data:`COMMANDS`."""
        write_commands(formatter, ((name, help) for name, (_, help) in COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's; names that other programs have for it are told, and not taken."""
        if args[0] not in COMMANDS:
            from moorline.cli.typed_words import MEANT  # a slip alone needs it

            meant = MEANT.get(args[0])
        else:
            meant = None
        if meant:
            ctx.fail(f"No such command {args[0]!r}. Did you mean {meant!r}?")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """As click's, but no command is loaded to tell its help."""
        from click.shell_completion import CompletionItem  # not before: help does without

        found = [
            CompletionItem(name, help=help)
            for name, (_, help) in sorted(COMMANDS.items())
            if name.startswith(incomplete)
        ]
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        words = sys.argv[1:] if args is None else args
        if words and words[0].startswith("-") and words[0] not in _HELP:
            from moorline.cli.typed_words import command_first  # seldom: help does without

            words = command_first(words)
        if _COMPLETE in os.environ:
            import_module("moorline.cli.completion")  # ours are used then, in place of click's
        run: Callable[[], Any] = partial(
            super().main, words, prog_name, complete_var, standalone_mode=False, **extra
        )
        if not standalone_mode:
            return run()
        try:
            code: object = _helped(run) if _HELP & set(words) else run()
        except click.Abort:
            from moorline.cli.output import interrupted

            sys.exit(interrupted(asked_output(words)))
        except click.ClickException as e:
            _tell(e, asked_output(words))
            sys.exit(e.exit_code)
        except Exception as e:  # noqa: BLE001 - all but ours are raised again
            sys.exit(_failed_early(e, asked_output(words)))
        sys.exit(code if isinstance(code, int) else 0)


def _helped(run: Callable[[], Any]) -> object:
    """Print what click tells, help or version, and end as all commands do where that cannot be."""
    with redirect_stdout(StringIO()) as told:
        code: object = run()
    try:
        click.echo(told.getvalue(), nl=False)
    except OSError:
        from moorline.cli.output import say_or_exit  # not before: help loads nothing of ours

        say_or_exit("")
    return code


def _failed_early(error: Exception, output: str) -> int:
    """Tell an error of ours that an argument ended in; return the exit code. Raises all others."""
    from moorline.cli.output import failed  # not before: help loads nothing of ours
    from moorline.errors import MoorlineError

    if not isinstance(error, MoorlineError):
        raise error
    return failed(error, output)


def asked_output(words: Sequence[str]) -> str:
    """The last ``--output`` among *words*, which may be wrong in any other way."""
    from moorline.cli.output import FORMATS

    found = "text"
    for word, following in pairwise([*words, ""]):
        if word == "--":
            break
        if (option := _OUTPUT.match(word)) is None:
            continue
        value = word[option.end() :].removeprefix("=") or following
        found = value if value in FORMATS else found
    return found


def _tell(error: click.ClickException, output: str) -> None:
    from moorline.cli.output import complain, dump, problem

    if output == "text":
        error.show(shown := StringIO())
        complain(shown.getvalue().rstrip("\n"))
        return
    context = getattr(error, "ctx", None)
    hint = f"{context.command_path} --help" if context else "moorline --help"
    complain(dump(problem("usage", error.exit_code, error.format_message(), hint), output))


@click.group(cls=Lazy, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="moorline")
def main() -> None:
    """Attach storage volumes to virtual machines, and keep them attached.

    Nothing needs to run or be set up first. Repeating a command is success
    (detach: with the volume's whole id).
    """
