"""Reads a connection_info from a file."""
# pathlib takes as long to load as all of this:
# ruff: noqa: PTH123

from __future__ import annotations

import sys

from moorline.core.validation import parse_json
from moorline.errors import Refused

TYPE_CHECKING = False  # typing is left to mypy: what each command loads is kept small
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_MAX_FILE_BYTES = 256 << 10
"""Bytes of a file with a connection: Cinder's attachments have more in them."""


def read_connection(path: str) -> Mapping[str, Any]:
    """Read a connection_info, from Cinder or by hand; ``-``: from standard input."""
    text = _read(path, "the connection")
    try:
        connection = parse_json(text)
    except Refused as e:
        raise Refused(f"the connection {path} cannot be used: {e.message}") from None
    if isinstance(connection, dict) and isinstance(connection.get("connection_info"), dict):
        connection = connection["connection_info"]  # an attachment as Cinder shows it
    if not isinstance(connection, dict):
        raise Refused(f"the connection {path} is not a JSON object")
    return connection


def read_text(path: str, what: str) -> str:
    """Read a text file; ``-``: standard input. *what* names it in errors. Raises Refused."""
    try:
        return _read(path, what).decode()
    except UnicodeDecodeError:
        raise Refused(f"{what} {path} is not text in UTF-8") from None


def _read(path: str, what: str) -> bytes:
    try:
        if path == "-":
            text = _standard_input()
        else:
            with open(path, "rb") as file:
                text = file.read(_MAX_FILE_BYTES + 1)
    except OSError as e:
        raise Refused(f"{what} {path} cannot be read: {e.strerror}") from e
    if len(text) > _MAX_FILE_BYTES:
        raise Refused(f"{what} {path} has more than {_MAX_FILE_BYTES} bytes")
    return text


def _standard_input() -> bytes:
    if sys.stdin is None:  # <&-
        raise Refused("it was to come on standard input, which is closed")
    return sys.stdin.buffer.read(_MAX_FILE_BYTES + 1)
