"""Reads a connection_info from a file."""

from __future__ import annotations

import sys

from moorline.cli import typed_files
from moorline.core.validation import parse_json, parse_json_stream
from moorline.errors import Refused

TYPE_CHECKING = False  # typing is left to mypy: what each command loads is kept small
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

_MAX_FILE_BYTES = 256 << 10
"""Bytes of a file with a connection: Cinder's attachments have more in them."""
_MAX_LIST_BYTES = 16 << 20


def read_connection(path: str) -> Mapping[str, Any]:
    """Read a connection_info, from Cinder or by hand; ``-``: from standard input."""
    text = read_bytes(path, "the connection")
    try:
        connection = parse_json(text)
    except Refused as e:
        raise Refused(f"the connection {path} cannot be used: {e.message}") from None
    if isinstance(connection, dict) and isinstance(connection.get("connection_info"), dict):
        connection = connection["connection_info"]  # an attachment as Cinder shows it
    if not isinstance(connection, dict):
        raise Refused(f"the connection {path} is not a JSON object")
    return connection


def read_text(path: str, what: str, most: int = _MAX_FILE_BYTES) -> str:
    """Read a text file; ``-``: standard input. *what* names it in errors. Raises Refused."""
    try:
        return read_bytes(path, what, most).decode()
    except UnicodeDecodeError:
        raise Refused(f"{what} {path} is not text in UTF-8") from None


def read_connections(path: str) -> list[Mapping[str, Any]]:
    """Read a file of many: one JSON list, or JSON objects one after the other, a line each or not.

    A list can be the only value of an object, as in answers of Nova's and Cinder's API. ``-``:
    from standard input. Raises Refused.
    """
    text = read_bytes(path, "the connections", _MAX_LIST_BYTES)
    try:
        return [row for value in parse_json_stream(text) for row in _rows(value)]
    except Refused as e:
        raise Refused(f"the connections {path} cannot be used: {e.message}") from None


def _rows(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, dict) and len(value) == 1:
        ((name, only),) = value.items()
        value = only if isinstance(only, list) or name == "attachment" else value
    for row in value if isinstance(value, list) else [value]:
        if not isinstance(row, dict):
            raise Refused("there is something in it that is no object")
        yield row


def read_bytes(path: str, what: str, most: int = _MAX_FILE_BYTES) -> bytes:
    """Read a file; ``-``: standard input. *what* names it in errors. Raises Refused."""
    try:
        text = _standard_input(most) if path == "-" else typed_files.read(path, most)
    except OSError as e:
        raise Refused(f"{what} {path} cannot be read: {e.strerror}") from e
    if len(text) > most:
        raise Refused(f"{what} {path} has more than {most} bytes")
    return text


def _standard_input(most: int) -> bytes:
    if sys.stdin is None:  # <&-
        raise Refused("it was to come on standard input, which is closed")
    return sys.stdin.buffer.read(most + 1)
