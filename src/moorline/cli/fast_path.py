"""``list`` and ``attach`` through an agent: the commands that are typed and scripted most.

They need neither click nor what the agent has loaded already: loading it would take longer
than all that they do. Only plain command lines are understood here, with text for people as
their result; all others are left to click. A test compares the two.
"""
# pathlib takes as long to load as all that an agent's answer needs:
# ruff: noqa: PTH113

from __future__ import annotations

import json
import os
from types import SimpleNamespace

from moorline.cli import agent_socket, output
from moorline.core.validation import MAX_TEXT_CHARACTERS
from moorline.deadline import (
    DEFAULT_TIMEOUT_SECONDS,
    MAX_TIMEOUT_SECONDS,
    Deadline,
    waited_for,
)
from moorline.errors import MoorlineError, Refused
from moorline.local_api import wire

TYPE_CHECKING = False  # typing is left to mypy: what each command loads is kept small
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_FLAGS = {
    "list": {"--quiet", "-q"},
    "attach": {"--quiet", "-q", "--read-only", "--shared", "--dry-run"},
}
_VALUES: dict[str, dict[str, tuple[str, ...]]] = {
    "list": {"--state-dir": ()},
    "attach": {
        "--state-dir": (),
        "--connection": (),
        "--format": ("raw", "qcow2", "ploop"),
        "--volume": (),
        "--bus": (),
        "--target": (),
        "--level": ("connected", "attached"),
        "--timeout": (),
    },
}
"""The options that have a value, and what it may be; (): anything."""
_MAX_ARGUMENTS = {"list": 0, "attach": 2}
_COLUMNS = {"volume", "guest", "wanted", "seen", "device", "next", "storage"}
_UNTOLD = {"storage": "", "paused": ""}
"""What an agent of an earlier version does not tell."""


class Typed:
    """A command line that was understood."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.arguments: list[str] = []
        self.options: dict[str, str] = {}
        """By name; a flag that is set has its name as value."""

    def says(self, option: str, default: str = "") -> str:
        return self.options.get(option, default)


def run(words: Sequence[str]) -> int | None:
    """Run a command line and return its exit code. None: nothing was done, leave it to click."""
    try:
        typed = read(words)
        if typed is None:
            return None
        body = _request(typed) if typed.name == "attach" else None
        if said := _state_dir(typed):
            _demand_answer(said)
        with waited_for(Deadline(_patience(body))):
            path = agent_socket.find(_state_dir(typed))
        if path is None:
            return _list_alone(typed) if body is None else None
        return _list(path) if body is None else _attach(path, typed, body)
    except _SlowPath:
        return None
    except MoorlineError as e:
        return output.failed(e, "text")
    except output.Unprinted as e:
        return output.unprinted(e, "text")
    except KeyboardInterrupt:
        return output.interrupted("text")


def _patience(body: dict[str, Any] | None) -> float:
    """Seconds that the caller waits."""
    said = body["timeout"] if body else None
    return DEFAULT_TIMEOUT_SECONDS if said is None else float(said)


def _demand_answer(state_dir: str) -> None:
    """Raise Unavailable if *state_dir* does not answer; _SlowPath if it is a file."""
    from moorline.cli.typed_files import answered

    if answered(state_dir, lambda: os.path.isfile(state_dir)):
        raise _SlowPath  # that is wrong usage


def _state_dir(typed: Typed) -> str | None:
    return typed.says("--state-dir") or os.environ.get("MOORLINE_STATE_DIR")


class _SlowPath(Exception):
    """The command line was not understood, and nothing was done: leave it to click."""


def read(words: Sequence[str]) -> Typed | None:
    """Parse a command line; None: it is not plain enough to be sure."""
    if not words or words[0] not in _FLAGS or _is_told_elsewhere() or _is_odd(words):
        return None
    name = words[0]
    typed, left = Typed(name), iter(words[1:])
    for word in left:
        if word in typed.options:
            return None
        if word in _FLAGS[name]:
            typed.options[word] = word
        elif word in _VALUES[name]:
            value = next(left, "")
            choices = _VALUES[name][word]
            if not value or value[0] == "-" or (choices and value not in choices):
                return None
            typed.options[word] = value
        elif not word or word[0] == "-":
            return None
        else:
            typed.arguments.append(word)
    return typed if len(typed.arguments) <= _MAX_ARGUMENTS[name] else None


def _is_told_elsewhere() -> bool:
    """Whether a shell asks for completions, or the environment names the hypervisor."""
    return bool(os.environ.get("_MOORLINE_COMPLETE") or os.environ.get("MOORLINE_HYPERVISOR"))


def _is_odd(words: Sequence[str]) -> bool:
    """Whether a word is too long, or not encodable."""
    try:
        return any(len(word) > MAX_TEXT_CHARACTERS or not word.encode() for word in words)
    except UnicodeEncodeError:
        return True


def _request(typed: Typed) -> dict[str, Any]:
    """The fields of the request. Raises _SlowPath."""
    file, format, timeout = typed.says("--connection"), typed.says("--format"), None
    if len(typed.arguments) != (1 if file else 2) or (file and format):
        raise _SlowPath
    if text := typed.says("--timeout"):
        if not (text.isascii() and text.replace(".", "", 1).isdigit()):
            raise _SlowPath
        timeout = float(text)
        if timeout > MAX_TIMEOUT_SECONDS:
            raise _SlowPath
    if "/" in typed.arguments[0]:
        raise _SlowPath  # it is no guest
    if not file and not (typed.arguments[1][0] == "/" or "://" in typed.arguments[1]):
        raise _SlowPath
    options = {
        "bus": typed.says("--bus"),
        "target": typed.says("--target"),
        "readonly": "--read-only" in typed.options,
        "shared": "--shared" in typed.options,
    }
    return {
        "guest": typed.arguments[0],
        "connection": _connection(file) if file else typed.arguments[1],
        "format": format or None,
        "volume": typed.says("--volume") or None,
        "level": typed.says("--level", "attached"),
        "options": {name: value for name, value in options.items() if value},
        "timeout": timeout,
        "dry_run": "--dry-run" in typed.options,
    }


def _connection(file: str) -> Any:
    from moorline.cli.connection import read_connection
    from moorline.cli.typed_files import is_regular

    if not is_regular(file):  # a pipe can be read only once
        raise _SlowPath
    try:
        return read_connection(file)
    except Refused:
        raise _SlowPath from None


def _list(path: str) -> int:
    try:
        told = wire.exchange(path, "GET", "/v1/list", None, patience=wire.TIMEOUT_SECONDS)
        views: list[Any] = [_Told({**_UNTOLD, **view}, _COLUMNS) for view in told]
        said = output.table(views)
    except (wire.Unanswered, TypeError, AttributeError):
        raise _SlowPath from None  # nothing was changed
    output.say(said)
    return 0


def _list_alone(typed: Typed) -> int:
    """The same without an agent."""
    from pathlib import Path

    from moorline.cli.facade import Target
    from moorline.cli.progress import Progress
    from moorline.cli.state_watch import StateWatch

    said = _state_dir(typed)
    progress = Progress(bool(typed.says("--quiet") or typed.says("-q")))
    watch = StateWatch(lambda error: output.failed(error, "text"))
    target = Target(Path(said) if said else None, None, (), progress, state_watch=watch)
    try:
        with target.open(own=False) as moorline:
            views = moorline.attachments.list()
    finally:
        watch.end()
        progress.end()
    output.say(output.table(views))
    return 0


def _attach(path: str, typed: Typed, fields: dict[str, Any]) -> int:
    from moorline.cli.progress import Progress

    body = json.dumps(fields).encode()
    if len(body) > wire.MAX_BODY_BYTES:
        raise _SlowPath
    timeout = fields["timeout"]
    patience = wire.TIMEOUT_SECONDS + (DEFAULT_TIMEOUT_SECONDS if timeout is None else timeout)
    dry_run: bool = fields["dry_run"]
    progress = Progress(bool(typed.says("--quiet") or typed.says("-q")))
    try:
        told = wire.exchange(path, "POST", "/v1/attach", body, patience=patience, progress=progress)
        outcome: Any = _Told({"unseen": "", **told}, {"unseen"})
        outcome.view = _Told({**_UNTOLD, **outcome.view}, _COLUMNS)
        said = output.outcome(outcome, dry_run)
    except (wire.Unanswered, TypeError, AttributeError) as e:
        raise wire.lost(path, wire.Unanswered(str(e)), changes=not dry_run) from e
    finally:
        progress.end()
    output.say(said)
    return 0


class _Told(SimpleNamespace):
    """An agent's answer, with at least these *texts* in it. Raises TypeError: it is another."""

    def __init__(self, told: Any, texts: set[str]) -> None:
        if not (isinstance(told, dict) and all(isinstance(told.get(each), str) for each in texts)):
            raise TypeError("it tells something else")
        super().__init__(**told)
