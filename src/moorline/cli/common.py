"""What all commands share: options, the way to the façade, errors to exit codes."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from moorline import errors
from moorline.cli import fast_path
from moorline.cli.output import (
    EXIT_INTERRUPTED,
    FORMATS,
    Unprinted,
    complain,
    dump,
    failed,
    say,
    unprinted,
)
from moorline.cli.progress import Progress
from moorline.core.validation import MAX_TEXT_CHARACTERS, check_text
from moorline.deadline import Deadline

if TYPE_CHECKING:
    from moorline.config import Settings
    from moorline.ports.api import Api

F = TypeVar("F", bound=Callable[..., Any])

LONGEST_TIMEOUT_SECONDS = 86400.0
"""Seconds; an agent takes no longer one either."""
_LOCK_POLL_SECONDS = 0.5
"""Seconds to wait for whoever has the host before looking for an agent again."""

timeout_option = click.option(
    "--timeout",
    type=click.FloatRange(min=0, max=LONGEST_TIMEOUT_SECONDS),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to go on trying.",
)
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Change nothing; say what would be done."
)


def _said(_: str) -> None:
    """Who is waited for was told already."""


@dataclass(frozen=True, slots=True)
class Common:
    """The values of the options that every command has."""

    output: str
    state_dir: Path | None
    hypervisor: str | None
    config_files: tuple[Path, ...]
    progress: Progress

    def settings(self) -> Settings:
        """Read the configuration. Raises Refused."""
        from moorline import wiring

        return wiring.settings(
            self.config_files, state_dir=self.state_dir, hypervisor=self.hypervisor
        )

    def tell(self, value: Any, text: str) -> None:
        """Print a result: *text* for people ('': nothing), or *value* as JSON or YAML."""
        if told := text if self.output == "text" else dump(value, self.output):
            say(told)

    def open(self, *, own: bool, patience: float = 0.0, first: bool = False) -> Api:
        """Open the façade: the agent's if one runs, else as the host's owner, or only to look.

        *first*: this may be the first command with its state directory. Others refuse one that
        was typed and is not there: nothing is made for a word that was mistyped.
        """
        if agent := self._agent_by_fast_path():
            return agent
        from moorline import wiring

        settings = self.settings()
        if settings.personal and (agents := self._hosts_agent(settings)):
            return agents
        deadline = Deadline(patience)
        waiting: Callable[[str], None] = self.progress
        while (agent := self._agent(settings)) is None:
            if not first and self.state_dir and not self.state_dir.is_dir():
                raise errors.Refused(
                    f"there is no state directory {self.state_dir}",
                    hint="see --state-dir and MOORLINE_STATE_DIR; the first attach makes it",
                )
            left = deadline.left()
            try:
                return wiring.open_host(
                    settings,
                    own=own,
                    patience=min(_LOCK_POLL_SECONDS, left),
                    waiting=waiting,
                )
            except errors.Busy:
                # Whoever has the host may be an agent that is about to open its socket.
                if not left:
                    raise
            waiting = _said
        return agent

    def _agent_by_fast_path(self) -> Api | None:
        """The agent, where plain options lead to one and it can be nobody else's: then no back
        end and no configuration has to be loaded. None: the long way tells."""
        if self.hypervisor or self.config_files:
            return None
        socket = fast_path.agent(str(self.state_dir) if self.state_dir else None)
        if socket is None:
            return None
        from moorline.local_api.client import Client

        return Client(socket)

    def _hosts_agent(self, personal: Settings) -> Api | None:
        """The agent of the host's state, for a user who has no state of his own.

        None: he has, or the host has none. Raises Denied (he may not use it), Unavailable
        (the host has state, and no agent answers), Refused as :meth:`_agent`.
        """
        from moorline import config, wiring

        hosts = wiring.settings(
            self.config_files, state_dir=config.HOST_STATE_DIR, hypervisor=self.hypervisor
        )
        if wiring.has_state(personal):
            return None
        agent = self._agent(hosts)
        if agent is None and (hosts.state_dir / "moorline.db").exists():
            raise errors.Unavailable(
                f"the state of this host is root's, and no agent answers at"
                f" {hosts.agent['agent_socket']}",
                hint="start the agent, or run as root; --state-dir for a state of your own",
            )
        return agent

    def _agent(self, settings: Settings) -> Api | None:
        """The agent that owns this state, if one runs. Raises Refused if it does otherwise
        than it was asked here."""
        from moorline.config import digest
        from moorline.local_api.client import Client

        client = Client(settings.agent["agent_socket"])
        try:
            about = client.about()
        except errors.Unavailable:
            return None
        # The option agent_socket may name the socket of an agent that keeps another state.
        own = self.state_dir is not None or settings.personal
        if own and Path(about["state_dir"]).resolve() != settings.state_dir.resolve():
            return None
        asked = bool(self.hypervisor or self.config_files)
        if asked and about["hypervisor"] != settings.hypervisor:
            raise errors.Refused(
                f"this host's agent uses {about['hypervisor']}, not {settings.hypervisor}",
                hint="leave --hypervisor and --config-file out, or give another --state-dir",
            )
        if self.config_files and about["options"] != digest(settings):
            raise errors.Refused(
                "this host's agent runs with other options than these",
                hint="restart it with this --config-file, or leave it out here",
            )
        return client


def common(command: F) -> Callable[..., Any]:
    """Give *command* the shared options, and turn its errors into exit codes."""

    @click.option(
        "--output",
        "-o",
        type=click.Choice(FORMATS),
        default="text",
        help="How to print the result; errors follow on stderr.",
    )
    @click.option(
        "--state-dir",
        # Not readable is for the store to say: it is Denied, not wrong usage.
        type=click.Path(file_okay=False, readable=False, path_type=Path),
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
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Read options from here; an existing nova.conf will do. Can be repeated.",
    )
    @click.option("--quiet", "-q", is_flag=True, help="No progress on stderr.")
    @functools.wraps(command)
    def run(
        output: str,
        state_dir: Path | None,
        hypervisor: str | None,
        config_files: tuple[Path, ...],
        quiet: bool,
        **arguments: Any,
    ) -> None:
        progress = Progress(quiet)
        given = Common(output, state_dir, hypervisor, config_files, progress)
        try:
            _check(arguments)
            command(given, **arguments)
        except errors.MoorlineError as e:
            progress.end()
            sys.exit(failed(e, output))
        except Unprinted as e:
            progress.end()
            sys.exit(unprinted(e))
        except KeyboardInterrupt:
            complain("moorline: interrupted; an attachment that was recorded is kept")
            sys.exit(EXIT_INTERRUPTED)
        finally:
            progress.end()

    return run


def from_here(text: str) -> str:
    """A path that was typed, from the root: an agent has another current directory.

    A URL stays as it is. ".." is left in it: what is before it may be a symbolic link.
    Raises Refused.
    """
    if text.startswith("/") or "://" in text:
        return text
    try:
        return str(Path.cwd() / text)
    except OSError as e:
        raise errors.Refused(f"the current directory cannot be told: {e.strerror}") from e


class VolumeName(click.ParamType):  # type: ignore[type-arg]
    """A volume that is known: its id, the beginning of that, or the path or URL that was typed."""

    name = "volume"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return from_here(value) if "/" in value else value
        except errors.Refused as e:
            self.fail(e.message, param, ctx)


volume_argument = click.argument("volume", type=VolumeName(), metavar="VOLUME")


def _check(arguments: Mapping[str, Any]) -> None:
    """Refuse what an agent would refuse, whether there is one or not."""
    for text in arguments.values():
        if isinstance(text, str):
            check_text(text)
            if len(text) > MAX_TEXT_CHARACTERS:
                raise errors.Refused(
                    f"what was typed has more than {MAX_TEXT_CHARACTERS} characters"
                )
