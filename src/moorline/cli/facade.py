"""The way to the façade: an agent's if one answers, else what a host's owner is made of."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from moorline import errors
from moorline.cli import agent_socket
from moorline.cli.progress import Progress
from moorline.cli.state_watch import StateWatch
from moorline.deadline import Deadline, waited_for
from moorline.local_api import wire

if TYPE_CHECKING:
    from moorline.config import Settings
    from moorline.ports.api import Api

_LOCK_POLL_SECONDS = 0.5
"""Seconds to wait for the host lock before looking for an agent again."""


def _said(_: str) -> None:
    """Say nothing: who holds the lock was told already."""


_URL_THAT_IS_NONE = re.compile("([A-Za-z0-9][A-Za-z0-9._-]*):/")
"""Of a URL with one slash, or of what mount(8) takes; nobody's password can be in that."""


def from_here(text: str) -> str:
    """A typed path made absolute: an agent has another current directory.

    A URL stays as it is, and so does a volume of Cinder's (``cinder:NAME``). ".." stays in it: what
    is before it may be a symbolic link. Raises Refused.
    """
    if text.startswith(("/", "cinder:")) or "://" in text:
        return text
    try:
        return str(Path.cwd() / text)
    except OSError as e:
        raise errors.Refused(f"the current directory cannot be told: {e.strerror}") from e


def storage_from_here(text: str) -> str:
    """As :func:`from_here`, of what is typed for a storage. Raises Refused (a URL that is none)."""
    if (slip := _URL_THAT_IS_NONE.match(text)) and "://" not in text:
        begins = slip[1]
        raise errors.Refused(
            f"what begins with {begins}:/ is no URL",
            hint=f"a URL: {begins}://…; what an NFS server exports: nfs://{begins}/…;"
            f" a file: ./{begins}:/…",
        )
    return from_here(text)


@dataclass(frozen=True, slots=True)
class Target:
    """Which state, of which hypervisor, by which options."""

    state_dir: Path | None
    hypervisor: str | None
    config_files: tuple[Path, ...]
    progress: Progress
    state_watch: StateWatch | None = field(default=None, kw_only=True)
    """What ends the command where its state hangs after the first look; None: nothing does."""

    def settings(self) -> Settings:
        """Read the configuration. Raises Refused, Unavailable (the state does not answer)."""
        return self._settings(self.state_dir)

    def _settings(self, state_dir: Path | None) -> Settings:
        from moorline import wiring
        from moorline.cli import typed_files

        typed_files.demand_home()
        settings = wiring.settings(
            self.config_files, state_dir=state_dir, hypervisor=self.hypervisor
        )
        typed_files.demand_directory(str(settings.state_dir))
        return settings

    def watch_state(self, settings: Settings, *, changes: bool) -> None:
        """End the command if its state answers no more. *changes*: it may change something."""
        if self.state_watch is not None:
            self.state_watch.begin(str(settings.state_dir), changes=changes)

    def open(self, *, own: bool, patience: float = 0.0, first: bool = False) -> Api:
        """Open the façade: the agent's if one runs, else as the host's owner, or only to look.

        *first*: the command may make its state directory. Others refuse one that
        was typed and is not there: nothing is made for a word that was mistyped.
        """
        if patience:
            with waited_for(Deadline(patience)):
                return self._open(own, patience, first)
        return self._open(own, patience, first)

    def _open(self, own: bool, patience: float, first: bool) -> Api:
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
            self.watch_state(settings, changes=own)
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
        end and no configuration has to be loaded. None: the configuration decides.
        """
        if self.hypervisor or self.config_files:
            return None
        socket = agent_socket.find(str(self.state_dir) if self.state_dir else None)
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

        hosts = self._settings(config.HOST_STATE_DIR)
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
        than it was asked here, Unavailable if it does not answer.
        """
        socket = settings.agent["agent_socket"]
        try:
            about = wire.about(socket)
        except wire.Silent:
            raise
        except errors.Unavailable:
            return None
        from moorline.config import digest
        from moorline.local_api.client import Client

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
        return Client(socket)
