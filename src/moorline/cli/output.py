"""Values to text, JSON or YAML, and those to standard output."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import contextmanager

from moorline.errors import MoorlineError, Uncertain
from moorline.exit_codes import EXIT_INTERRUPTED, EXIT_READER_GONE, exit_code
from moorline.local_api.http_errors import to_problem

TYPE_CHECKING = False  # typing is left to mypy: what each command loads is kept small
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from moorline.ports.results import Outcome, View

FORMATS = ("text", "json", "yaml")
DATA = ("json", "yaml")
_COLUMNS = ("VOLUME", "GUEST", "WANTED", "SEEN", "DEVICE", "AGE", "STORAGE")
_WIDE = (*_COLUMNS, "FORMAT", "SIZE", "BACK END", "LINK", "HOST")
_SEEN = _COLUMNS.index("SEEN")
_ODD, _PLAIN_AGAIN = "\x1b[31m", "\x1b[0m"


class Painted(str):
    """Text with colours of our own, in which all that is another's is visible already."""

    __slots__ = ()


class Unprinted(Exception):
    """What was asked is done, and its result cannot be written to standard output."""


def say(text: str) -> None:
    """Write *text* and a newline, through to the file. Raises Unprinted."""
    try:
        _echo(text)
        if sys.stdout is not None:  # it was closed before we began
            sys.stdout.flush()
    except OSError as e:
        # What is buffered is dropped: Python would try it again, and complain, when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise Unprinted(e.strerror) from e


def say_or_exit(text: str) -> None:
    """As :func:`say`; where it cannot be, end as a command does whose result cannot be printed."""
    try:
        say(text)
    except Unprinted as e:
        sys.exit(unprinted(e, "text"))


def complain(text: str) -> None:
    """Write to standard error. Where that is full or gone, the exit code has to do."""
    try:
        _echo(text, err=True)
    except OSError:
        # What could not be written is kept, and Python 3.13 tries again at the end and exits 120.
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123 - until the end


def _echo(text: str, *, err: bool = False) -> None:
    if (stream := sys.stderr if err else sys.stdout) is not None:
        shown = text if isinstance(text, Painted) else _visible(text, "\n\t")
        stream.write(f"{shown}\n")
        stream.flush()


def _visible(text: str, keep: str = "") -> str:
    """*text* without what a terminal would obey: who names a guest or a file may not paint."""
    if text.isprintable():
        return text
    from moorline.redaction import visible  # names are seldom like that

    return visible(text, keep)


def failed(error: MoorlineError, output: str) -> int:
    """Tell an error on standard error, and return its exit code."""
    if output in DATA:
        complain(dump(to_problem(error), output))
    else:
        complain(f"moorline: {error.message}")
        if error.hint:
            complain(f"  hint: {error.hint}")
    return exit_code(error)


def note(text: str, output: str) -> None:
    """Tell programs on standard error what no error is: an object in a line, or a document."""
    told = json.dumps({"note": text})
    complain(told if output == "json" else f"{told}\n---")


def unprinted(error: Unprinted, output: str) -> int:
    """Tell that the result could not be, and return the exit code."""
    if isinstance(error.__cause__, BrokenPipeError):
        return EXIT_READER_GONE
    return failed(
        Uncertain(f"what was asked is done, and its result cannot be printed: {error}"), output
    )


def interrupted(output: str) -> int:
    """Tell that the command was, and return the exit code."""
    what = "interrupted; an attachment that was recorded is kept"
    told = dump(problem("interrupted", EXIT_INTERRUPTED, what), output) if output in DATA else ""
    complain(told or f"moorline: {what}")
    return EXIT_INTERRUPTED


@contextmanager
def ended_by_its_reader() -> Iterator[None]:
    """What goes on until its reader has seen enough: Ctrl+C ends it, with nothing to tell."""
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


def problem(error: str, code: int, message: str, hint: str = "") -> dict[str, Any]:
    """What is no error of ours, in the shape of those."""
    return {
        "error": error,
        "code": code,
        "message": message,
        "hint": hint,
        "volume": "",
        "guest": "",
    }


def dump(value: Any, output: str) -> str:
    """Serialise a result as ``json`` or ``yaml``: plain values, or what has a ``to_dict``."""
    plain = _plain(value)
    if output == "json":
        return json.dumps(plain, indent=2)
    import yaml

    return str(yaml.safe_dump(plain, sort_keys=False)).rstrip()


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value.to_dict() if hasattr(value, "to_dict") else value


def table(views: Sequence[View], *, wide: bool = False) -> str:
    """One line an attachment, under a heading; red where a terminal shows what is not as wanted."""
    rows = [[*_row(view), *(_wide(view) if wide else ())] for view in views]
    columns = _padded([_WIDE if wide else _COLUMNS, *rows])
    painted = paints()
    if painted:
        for cells, view in zip(columns[1:], views, strict=True):
            if not is_as_wanted(view):
                cells[_SEEN] = f"{_ODD}{cells[_SEEN]}{_PLAIN_AGAIN}"
    lines = ["  ".join(cells).rstrip() for cells in columns]
    pauses = sorted({view.paused for view in views} - {""})
    text = "\n".join([*lines, *(f"{_visible(why)}: moorline doctor" for why in pauses)])
    return Painted(text) if painted else text


def is_as_wanted(view: View) -> bool:
    """Whether nothing is left to do, and nothing is waited for."""
    return view.next == "nothing"


def paints() -> bool:
    """Whether colours are seen, and wanted (https://no-color.org)."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return not plain and sys.stdout is not None and sys.stdout.isatty()


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """One line a row, in columns; all rows have as many cells."""
    return "\n".join("  ".join(cells).rstrip() for cells in _padded(rows))


def _padded(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    rows = [[*map(_visible, row)] for row in rows]
    widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
    return [[_filled(cell, width) for cell, width in zip(row, widths, strict=True)] for row in rows]


def _filled(cell: str, width: int) -> str:
    return cell + " " * (width - _width(cell))


def _width(cell: str) -> int:
    """How many columns of a terminal it takes: Chinese letters have two, accents none."""
    if cell.isascii():
        return len(cell)
    from unicodedata import combining, east_asian_width  # names are seldom like that

    return sum(0 if combining(c) else 1 + (east_asian_width(c) in "WF") for c in cell)


def _human(size: int | None) -> str:
    from moorline.byte_sizes import human  # not before: what each command loads is kept small

    return human(size)


def details(view: View) -> str:
    """All that is known of one attachment, a line a fact."""
    facts = [
        ("volume", view.volume),
        ("guest", f"{view.guest} ({view.guest_id})"),
        ("host", view.host),
        ("storage", view.storage or "-"),
        ("format", "luks (encrypted)" if view.format == "luks" else view.format or "-"),
        ("size", _human(view.size)),
        ("back end", view.backend),
        ("link", view.link),
        ("wanted", view.wanted),
        ("seen", f"{_seen(view)} as {view.device}" if view.device else _seen(view)),
        ("age", age(view.since)),
        ("shares link", ", ".join(view.also_wanted_by) or "with no other attachment"),
        ("link used by", ", ".join(view.used_by) or "no guest"),
        ("next", view.next),
    ]
    if options := _options(view):
        facts.append(("options", options))
    if view.paused:
        facts.append(("paused", view.paused))
    if view.trouble:
        facts.append(
            ("last error", f"{view.trouble.message} ({age(view.trouble.at)} ago)"),
        )
    return "\n".join(f"{name + ':':<14}{_visible(text)}" for name, text in facts)


def _options(view: View) -> str:
    """How the guest was to have the disk, as it is typed, where that was said."""
    from moorline.disk_options import OPTIONS, Kind  # what lists many does without

    said = []
    for option in OPTIONS:
        value = view.options.get(option.name, option.default)
        if value != option.default:
            text = _human(value) if option.kind is Kind.BYTES else str(value)
            said.append(option.typed if option.kind is Kind.FLAG else f"{option.typed} {text}")
    return ", ".join(said)


def outcome(outcome: Outcome, dry_run: bool, *, wait: bool = True) -> str:
    """What a change came to, or would."""
    view = outcome.view
    if dry_run:
        text = f"would {', '.join(outcome.steps)}" if outcome.steps else "nothing to do"
        return f"{text}\nnot looked at: {outcome.unseen}" if outcome.unseen else text
    if not wait and not is_as_wanted(view):
        level = "detached" if view.wanted == "absent" else view.wanted
        return f"volume {view.volume} of {view.guest} is to be {level}; due: {view.next}"
    if view.wanted == "absent":
        return f"volume {view.volume} is detached from {view.guest}"
    where = f" as {view.device}" if view.device else ""
    to = "for" if view.wanted == "connected" else "to"
    return f"volume {view.volume} is {view.wanted} {to} {view.guest}{where}"


def age(since: float) -> str:
    """Seconds since the epoch to a short age: 12s, 5m, 3h, 9d."""
    seconds = max(0, int(time.time() - since))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _seen(view: View) -> str:
    """What is seen; where that is what is wanted, and yet a step is due, that step, too."""
    if view.seen != view.wanted or is_as_wanted(view):
        return view.seen
    return f"{view.seen}+{view.next.partition(':')[0].replace(' ', '-')}"


def _row(view: View) -> tuple[str, ...]:
    return (
        view.volume,
        view.guest,
        view.wanted,
        _seen(view),
        view.device or "-",
        age(view.since),
        view.storage or "-",
    )


def _wide(view: View) -> tuple[str, ...]:
    return view.format or "-", _human(view.size), view.backend, view.link, view.host
