"""Checks what callers send, which is untrusted however it came: typed, in a file, by a socket.

The same is refused in each case, and no message repeats a value: it may be a secret.
"""

from __future__ import annotations

import json
import math

from moorline.errors import Refused

TYPE_CHECKING = False  # typing is left to mypy: what each command loads is kept small
if TYPE_CHECKING:
    from typing import Any, NoReturn

MAX_DEPTH = 16
"""Levels of nested objects and lists that are read."""
MAX_TEXT_CHARACTERS = 4096
"""Characters of a text that are read."""
MAX_INTEGER = 2**63 - 1


def parse_json_stream(text: bytes) -> list[Any]:
    """As :func:`parse_json`, of values one after the other, with blanks or newlines between."""
    decoder = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_no_key_twice)
    values = []
    try:
        decoded = text.decode("utf-8").rstrip()
        at = 0
        while at < len(decoded):
            while decoded[at].isspace():
                at += 1
            value, at = decoder.raw_decode(decoded, at)
            values.append(value)
    except (ValueError, RecursionError):
        raise Refused("this is not JSON in UTF-8, or it names a key twice") from None
    check_value(values)
    return values


def parse_json(text: bytes) -> Any:
    """Read untrusted JSON: no NaN, no key twice, no NUL, nothing too deep. Raises Refused."""
    try:
        value = json.loads(
            text.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_no_key_twice
        )
    except (ValueError, RecursionError):
        # The text may hold credentials, so what the parser says of it is not repeated.
        raise Refused("this is not JSON in UTF-8, or it names a key twice") from None
    check_value(value)
    return value


def _no_constant(_: str) -> NoReturn:
    raise ValueError


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def check_value(value: Any, depth: int = MAX_DEPTH) -> None:
    """Refuse what no record, command or path could hold, at any level of *value*."""
    if depth == 0:
        raise Refused(f"this JSON is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, str):
        check_text(value)
    elif isinstance(value, dict):
        for key, item in value.items():
            check_text(key)
            check_value(item, depth - 1)
    elif isinstance(value, list):
        for item in value:
            check_value(item, depth - 1)
    elif isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise Refused("a number is larger than 63 bits can hold")
    elif isinstance(value, float) and not math.isfinite(value):
        raise Refused("a number is too large")


def check_reason(text: str) -> None:
    """Refuse as a person's word what tells nobody anything: blanks, or control characters."""
    if not text.strip():
        raise Refused("a reason is asked for, and blanks are none")
    if not text.isprintable():
        raise Refused("a reason has a character in it that cannot be printed, or a line break")


def check_text(text: str) -> None:
    """Refuse a text that the store or the system cannot take: with NUL, or not encodable."""
    if "\0" in text:
        raise Refused("a text has a NUL in it")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Refused("a text has half of a surrogate pair in it") from None
