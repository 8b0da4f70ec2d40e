"""Values to text, JSON or YAML, and those to standard output."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import click

from moorline.ports.results import View

FORMATS = ("text", "json", "yaml")
_COLUMNS = ("VOLUME", "GUEST", "HOST", "WANTED", "SEEN", "DEVICE", "AGE")


class Unprinted(Exception):
    """What was asked is done, and its result cannot be written to standard output."""


def say(text: str) -> None:
    """Write *text* and a newline, through to the file. Raises Unprinted."""
    try:
        click.echo(text)
        if sys.stdout is not None:  # it was closed before we began
            sys.stdout.flush()
    except OSError as e:
        # What is buffered is dropped: Python would try it again, and complain, when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise Unprinted(e.strerror) from e


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


def table(views: Sequence[View]) -> str:
    """One line an attachment, under a heading."""
    return aligned([_COLUMNS, *map(_row, views)])


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """One line a row, in columns; all rows have as many cells."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def details(view: View) -> str:
    """All that is known of one attachment, a line a fact."""
    facts = [
        ("volume", view.volume),
        ("guest", f"{view.guest} ({view.guest_id})"),
        ("host", view.host),
        ("back end", view.backend),
        ("link", view.link),
        ("wanted", view.wanted),
        ("seen", f"{view.seen} as {view.device}" if view.device else view.seen),
        ("age", age(view.since)),
        ("shares link", ", ".join(view.also_wanted_by) or "with no other attachment"),
        ("link used by", ", ".join(view.used_by) or "no guest"),
        ("next", view.next),
    ]
    if view.trouble:
        facts.append(
            ("last error", f"{view.trouble.message} ({age(view.trouble.at)} ago)"),
        )
    return "\n".join(f"{name + ':':<14}{text}" for name, text in facts)


def age(since: float) -> str:
    """Seconds since the epoch to a short age: 12s, 5m, 3h, 9d."""
    seconds = max(0, int(time.time() - since))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _row(view: View) -> tuple[str, ...]:
    return (
        view.volume,
        view.guest,
        view.host,
        view.wanted,
        view.seen,
        view.device or "-",
        age(view.since),
    )
