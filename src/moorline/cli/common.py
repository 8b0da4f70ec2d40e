"""What all commands share: options, the way to the façade, errors to exit codes."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from moorline import errors
from moorline.cli.checked_values import Seconds, persons_word
from moorline.cli.facade import Target
from moorline.cli.name_completion import ConfigFile, FilePath, GuestName, VolumeName, empty
from moorline.cli.output import (
    DATA,
    FORMATS,
    Unprinted,
    complain,
    dump,
    failed,
    interrupted,
    note,
    say,
    unprinted,
)
from moorline.cli.progress import Progress
from moorline.cli.state_watch import StateWatch
from moorline.core.validation import MAX_TEXT_CHARACTERS, check_text

F = TypeVar("F", bound=Callable[..., Any])

timeout_option = click.option(
    "--timeout",
    type=Seconds(),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to go on trying.",
)
vouch_option = click.option(
    "--i-know-that-no-other-host-has-it",
    "vouch",
    callback=persons_word,
    metavar="REASON",
    help="On a host of a fleet: do it without the fleet's word. The reason is kept in the events.",
)
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Change nothing; say what would be done."
)


@dataclass(frozen=True, slots=True)
class Common(Target):
    """The values of the options that every command has."""

    output: str

    def warn(self, text: str) -> None:
        """Tell people something on standard error ('': nothing), unless they want quiet."""
        if not text or self.progress.quiet:
            return
        if self.is_data:
            note(text, self.output)
        else:
            complain(text)

    @property
    def is_data(self) -> bool:
        """Whether the result is for programs."""
        return self.output in DATA

    def tell(self, value: Any, text: str) -> None:
        """Print a result: *text* for people ('': nothing), or *value* as JSON or YAML."""
        if told := dump(value, self.output) if self.is_data else text:
            say(told)


def common(command: F) -> Callable[..., Any]:
    """Give *command* the shared options, and turn its errors into exit codes."""
    return common_with()(command)


def common_with(*formats: str) -> Callable[[F], Callable[..., Any]]:
    """As :func:`common`, for a command whose ``--output`` can also be one of *formats*."""
    return lambda command: _common(command, formats)


def _common(command: F, formats: Sequence[str]) -> Callable[..., Any]:

    @click.option(
        "--output",
        "-o",
        type=click.Choice([*FORMATS, *formats]),
        default="text",
        help="How to print the result; errors follow on stderr.",
    )
    @click.option(
        "--state-dir",
        # click must not check readability: the store raises Denied, which is not wrong usage.
        type=FilePath(file_okay=False, readable=False),
        envvar="MOORLINE_STATE_DIR",
        help="Where the attachments are kept.",
    )
    @click.option(
        "--hypervisor",
        "-c",
        metavar="URI",
        envvar="MOORLINE_HYPERVISOR",
        help="qemu:///system (default), qemu:///session, qemu:///embed?root=DIR, powervm:///,"
        " powervm://HOST[:PORT], vsphere://HOST[:PORT].",
    )
    @click.option(
        "--config-file",
        "config_files",
        multiple=True,
        type=ConfigFile(),
        help="Read options from here; an existing nova.conf will do. Can be repeated.",
    )
    @click.option(
        "--quiet",
        "-q",
        is_flag=True,
        help="No progress on stderr, as of --output json and yaml.",
    )
    @click.option(
        "--verbose",
        "-v",
        "log_level",
        flag_value="debug",
        help="Tell on stderr which commands are run and what the hypervisor is asked."
        " What an agent does is in its own log, where agent_log_level is debug.",
    )
    @click.option(
        "--log-level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        help="Tell on stderr what is logged, from this level on; --verbose is debug.",
    )
    @functools.wraps(command)
    def run(
        output: str,
        state_dir: Path | None,
        hypervisor: str | None,
        config_files: tuple[Path, ...],
        quiet: bool,
        log_level: str | None,
        **arguments: Any,
    ) -> None:
        if log_level:
            from moorline.agent import logs  # loading it takes as long as a short command

            logs.set_up("text", log_level)
        elif output in DATA:
            _log_to_nobody()
        progress = Progress(quiet, to_people=output not in DATA)

        def given_up(error: errors.MoorlineError) -> int:
            progress.end()
            return failed(error.about(*named), output)

        named = _named(arguments)  # not asked in another thread: click knows its command in this
        watch = StateWatch(given_up)
        given = Common(
            state_dir, hypervisor, config_files, progress, output=output, state_watch=watch
        )
        try:
            _check(arguments)
            command(given, **arguments)
        except errors.MoorlineError as e:
            progress.end()
            sys.exit(failed(e.about(*named), output))
        except Unprinted as e:
            progress.end()
            sys.exit(unprinted(e, output))
        except KeyboardInterrupt:
            progress.end()
            sys.exit(interrupted(output))
        finally:
            watch.end()
            progress.end()

    return run


def _log_to_nobody() -> None:
    """Keep what is logged off standard error, where programs read the error alone.

    Python writes warnings there as long as nobody says where they go.
    """
    import logging  # here, as above

    logging.lastResort = logging.NullHandler()


wait_option = click.option(
    "--wait",
    type=bool,
    default=True,
    metavar="true|false",
    help="false: only record it; an agent or `moorline sweep` does the rest.",
)


def told(**arguments: Any) -> dict[str, Any]:
    """Those of *arguments* that were typed: an agent of an earlier version knows no others."""
    return {name: value for name, value in arguments.items() if value not in (None, False)}


guest_argument = click.argument("guest", type=GuestName())
guest_option = click.option(
    "--guest",
    type=GuestName(),
    metavar="GUEST",
    help="Of this guest alone; VOLUME may be its device.",
)
volume_argument = click.argument("volume", type=VolumeName(), metavar="VOLUME")


def _named(arguments: Mapping[str, Any]) -> tuple[str, str]:
    """The volume and the guest that were typed. A URL is left out: it may hold a password."""

    def one(name: str) -> str:
        value = arguments.get(name)
        if isinstance(value, tuple) and len(value) == 1:
            value = value[0]
        return value if isinstance(value, str) and "/" not in value else ""

    launches = click.get_current_context().command.name == "launch"
    return one("volume"), one("name" if launches else "guest")


def _check(arguments: Mapping[str, Any]) -> None:
    """Refuse words that an agent would refuse, even if there is none, and empty ones."""
    context = click.get_current_context()
    for parameter in context.command.params:
        name = parameter.name or ""
        typed = context.params.get(name)
        is_empty = typed == "" or (isinstance(typed, tuple) and "" in typed)
        if is_empty and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise empty(parameter, context)
    for value in arguments.values():
        for text in value if isinstance(value, tuple) else (value,):
            if not isinstance(text, str):
                continue
            _refuse_undecoded(text)
            check_text(text)
            if len(text) > MAX_TEXT_CHARACTERS:
                raise errors.Refused(
                    f"what was typed has more than {MAX_TEXT_CHARACTERS} characters"
                )


def _refuse_undecoded(text: str) -> None:
    """Raise Refused if what was typed is not UTF-8, which Python keeps as halves of surrogates."""
    if any("\udc80" <= character <= "\udcff" for character in text):
        # All else that is typed could be a URL with a password, which is not repeated.
        is_path = text.startswith(("/", "./", "../"))
        what = f"the file name {os.fsencode(text)!r:.300}" if is_path else "what was typed"
        raise errors.Refused(
            f"{what} is not UTF-8, so it cannot be recorded", hint="rename the file"
        )
