"""The daemon: takes the host lock, serves the socket, runs the loop, and stops in order."""

from __future__ import annotations

import logging
import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from moorline import config, wiring
from moorline.agent import logs
from moorline.agent.metrics import KIND, Metrics
from moorline.agent.systemd import Notifier
from moorline.api import Moorline
from moorline.deadline import Deadline
from moorline.errors import MoorlineError, Refused
from moorline.local_api.app import App
from moorline.local_api.peer import Rights
from moorline.local_api.server import Server, listen, loopback, loopback_address, refuse_served
from moorline.loop.controller import Controller
from moorline.wiring import OpenedAgent

OWNER_TIMEOUT_SECONDS = 10.0
"""Seconds to wait for a command that owns the host."""
STOP_TIMEOUT_SECONDS = 60.0
"""Seconds that steps under way have to end when we are told to stop."""
READY_TIMEOUT_SECONDS = 30.0
"""Seconds that the first try of all attachments may delay units that start after us."""
_READY_POLL_SECONDS = 0.05
_DRAIN_TIMEOUT_SECONDS = 2.0
"""Seconds in which clients may still take their answers, and libvirt's connections close."""
_WATCHDOG_INTERVAL_SECONDS = 5.0
"""Seconds between two checks that all threads run."""
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0", "")
_LOG = logging.getLogger("moorline.agent")


@dataclass(frozen=True, slots=True)
class Options:
    """The agent's own settings, checked."""

    socket: Path
    group: str
    anyone_may_look: bool
    metrics: str
    ui: str
    ui_group: str
    sweep_every: float
    log_format: str
    log_level: str

    @classmethod
    def of(cls, settings: config.Settings) -> Options:
        """Raises Refused, naming the option."""
        given = settings.agent
        look = given["agent_anyone_may_look"].lower()
        _check("agent_anyone_may_look", look, look in _TRUE + _FALSE, "neither true nor false")
        for name, known in (("agent_log_format", logs.FORMATS), ("agent_log_level", logs.LEVELS)):
            _check(name, given[name], given[name] in known, f"none of {', '.join(known)}")
        if given["agent_metrics"]:
            loopback_address(given["agent_metrics"])
        return cls(
            Path(given["agent_socket"]),
            given["agent_group"],
            look in _TRUE,
            given["agent_metrics"],
            given["agent_ui"],
            given["agent_ui_group"],
            _seconds("agent_sweep_every", given["agent_sweep_every"]),
            given["agent_log_format"],
            given["agent_log_level"],
        )

    @property
    def rights(self) -> Rights:
        return Rights.of(self.group, anyone_may_look=self.anyone_may_look)


def _check(name: str, value: str, good: bool, why: str) -> None:
    if not good:
        raise Refused(f"the option {name} is {value[:80]!r}, {why}", hint="see docs/reference.md")


def _seconds(name: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    _check(name, text, 1 <= seconds <= 86400, "not a number of seconds from 1 to 86400")
    return seconds


def _identity(file: Path) -> tuple[int, int] | None:
    with suppress(OSError):
        found = file.lstat()
        return found.st_dev, found.st_ino
    return None


def tried(controller: Controller) -> bool:
    """Whether each attachment was looked at, and tried once if it was not as wanted."""
    return controller.swept is not None and all(each.why for each in controller.pending())


class Agent:
    """One host's agent. *read*: reads the settings, now and again on SIGHUP."""

    def __init__(self, read: Callable[[], config.Settings]) -> None:
        self._read = read
        self._settings = read()
        self._options = Options.of(self._settings)
        self._signals: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._servers: list[Server] = []
        self._app: App | None = None
        self._file: tuple[int, int] | None = None
        """Which file is our socket."""

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; return the exit code.

        Blocks. Raises Busy (another agent, or a command that takes its time),
        Refused, Denied, Unavailable.
        """
        logs.set_up(self._options.log_format, self._options.log_level)
        systemd = Notifier()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, _: self._signals.put(number))
        refuse_served(self._options.socket)
        metrics = Metrics()
        opened = wiring.open_agent(
            self._settings,
            patience=OWNER_TIMEOUT_SECONDS,
            waiting=_LOG.info,
            report=metrics.took,
            every=self._options.sweep_every,
        )
        moorline, controller, following = opened
        metrics.watch(controller.pending, lambda: controller.swept)
        if following is not None:
            metrics.follow(following.unheard_seconds, lambda: following.copies_stopped)
        app = self._serve(moorline, metrics)
        if following is not None:
            following.start()
        controller.start()
        _LOG.info("serving %s", self._options.socket)
        healthy = self._watch(systemd, opened)
        systemd.tell("STOPPING=1")
        code = 0 if healthy else 1
        if not self._end(opened, app):
            # Something hangs. The kernel releases our lock; the next owner finds what came of it.
            _LOG.warning("stopped, with a step or a call to the hypervisor under way")
            logging.shutdown()
            os._exit(code)
        _LOG.info("stopped")
        return code

    def _serve(self, moorline: Moorline, metrics: Metrics) -> App:
        options, rights = self._options, self._options.rights
        collecting = loopback(options.metrics) if options.metrics else None
        page = self._page(moorline) if options.ui else None
        if rights.group is None:
            _LOG.warning("there is no group %s: only root may change anything", options.group)
        pages = {"/metrics": (KIND, metrics.page)}
        self._app = app = App(moorline, rights, self._about(), pages)
        listening = listen(options.socket, rights.mode, rights.group)
        self._file = _identity(options.socket)
        self._servers.append(Server(listening, app))
        if collecting is not None:
            only = App(moorline, Rights(None, anyone_may_look=True), {}, pages, only_pages=True)
            self._servers.append(Server(collecting, only))
        if page is not None:
            self._servers.append(page)
        for server in self._servers:
            server.start()
        return app

    def _page(self, moorline: Moorline) -> Server:
        from moorline.ui import serve  # it needs a library that not every agent has

        options = self._options
        return serve.on_socket(moorline, self._about(), Path(options.ui), options.ui_group)

    def _about(self) -> dict[str, Any]:
        return {
            "version": version("moorline"),
            "host": config.host_name(self._settings),
            "hypervisor": self._settings.hypervisor,
            "state_dir": str(self._settings.state_dir.absolute()),
            "options": config.digest(self._settings),
        }

    def _watch(self, systemd: Notifier, opened: OpenedAgent) -> bool:
        """Handle signals until one says stop; False: a thread died before that."""
        pause = (
            min(_WATCHDOG_INTERVAL_SECONDS, systemd.watchdog / 3)
            if systemd.watchdog
            else _WATCHDOG_INTERVAL_SECONDS
        )
        controller, following = opened.controller, opened.following
        loops = [controller.alive, *([following.alive] if following else [])]
        ready, patience = False, Deadline(READY_TIMEOUT_SECONDS)
        while True:
            number = None
            with suppress(queue.Empty):
                number = self._signals.get(timeout=pause if ready else _READY_POLL_SECONDS)
            if not ready and (tried(controller) or patience.over()):
                ready = True
                systemd.tell("READY=1")
            if number == signal.SIGHUP:
                systemd.tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
                self._reload()
                systemd.tell("READY=1")
            elif number is not None:
                _LOG.info("stopping: %s", signal.Signals(number).name)
                return True
            if not (all(alive() for alive in loops) and all(each.alive for each in self._servers)):
                _LOG.error("a loop of the agent has ended: starting anew is the cure")
                return False
            if self._file != _identity(self._options.socket):
                _LOG.error("somebody removed %s: starting anew is the cure", self._options.socket)
                return False
            systemd.tell("WATCHDOG=1", f"STATUS={len(controller.pending())} not as wanted yet")

    def _reload(self) -> None:
        """Apply the settings that can change while we run; log those that cannot."""
        try:
            settings = self._read()
            options = Options.of(settings)
        except MoorlineError as e:
            _LOG.error("the options stay as they were: %s", e)
            return
        logs.set_up(options.log_format, options.log_level)
        assert self._app is not None, "it serves"
        self._app.rights = options.rights
        with suppress(OSError):
            if options.rights.group is not None:
                os.chown(self._options.socket, -1, options.rights.group)
            self._options.socket.chmod(options.rights.mode)
        fixed = [
            name
            for name in ("socket", "metrics", "ui", "ui_group", "sweep_every")
            if getattr(options, name) != getattr(self._options, name)
        ]
        if settings.state_dir != self._settings.state_dir:
            fixed.append("state_dir")
        if settings.hypervisor != self._settings.hypervisor:
            fixed.append("the hypervisor")
        if config.digest(settings) != config.digest(self._settings):
            fixed.append("those of the host and the storage")
        _LOG.info("the options of rights and log were read again")
        if fixed:
            _LOG.warning("options that need a restart have changed: %s", ", ".join(fixed))

    def _end(self, opened: OpenedAgent, app: App) -> bool:
        """Finish steps under way, begin no others, and close the host; False if that hangs."""
        for server in self._servers:
            server.stop()
        with suppress(OSError):
            if self._file == _identity(self._options.socket):
                self._options.socket.unlink()
        deadline = Deadline(STOP_TIMEOUT_SECONDS)
        app.stop(0)
        followed = opened.following is None or opened.following.stop()
        finished = opened.controller.stop(STOP_TIMEOUT_SECONDS) and followed
        if not (app.stop(deadline.left()) and finished):
            return False
        self._servers[0].drain(_DRAIN_TIMEOUT_SECONDS)
        closing = threading.Thread(target=opened.moorline.close, name="closing", daemon=True)
        closing.start()
        closing.join(_DRAIN_TIMEOUT_SECONDS)
        return not closing.is_alive()
