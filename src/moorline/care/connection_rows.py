"""Reads connections as they come out of Nova, Cinder and their databases.

A row is a block device mapping of Nova's, an attachment of Cinder's (from the API, the
``openstack`` command or a database), or a bare ``connection_info``. What says that it is deleted
or detached, and what has no connection, is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moorline.core.validation import parse_json
from moorline.errors import Refused

_CONNECTION = ("connection_info", "connection", "properties")
_GUEST = ("instance_uuid", "instance_id", "server_id", "instance", "guest")
_GONE = ("deleted", "detached")


@dataclass(frozen=True, slots=True)
class ConnectionRow:
    """A connection, and for which volume of which guest it is, where that is told."""

    connection: Mapping[str, Any]
    guest: str = ""
    """The guest's id, in small letters; ''."""
    volume: str = ""


def connection_rows(given: Sequence[Mapping[str, Any]]) -> list[ConnectionRow]:
    """Read rows. Raises Refused, and quotes nothing of them: they may have credentials."""
    found = []
    for number, row in enumerate(given, 1):
        try:
            read = _read(row)
        except Refused as e:
            raise Refused(f"connection {number} cannot be used: {e.message}") from None
        if read is not None:
            found.append(read)
    return found


def _read(row: Mapping[str, Any]) -> ConnectionRow | None:
    facts = {key.lower().replace(" ", "_"): value for key, value in row.items()}
    if "driver_volume_type" in facts:
        connection: Any = row
    else:
        named = [facts[field] for field in _CONNECTION if field in facts]
        if not named:
            raise Refused("it has neither a driver_volume_type nor a connection_info")
        connection = named[0]
    if isinstance(connection, str):  # a column of a database
        connection = parse_json(connection.encode()) if connection.strip() else None
    if not connection or _is_gone(facts):
        return None
    if not isinstance(connection, Mapping):
        raise Refused("its connection_info is no object")
    data = connection.get("data")
    places = (facts, connection, data if isinstance(data, Mapping) else {})
    return ConnectionRow(
        connection,
        _text(places[:2], *_GUEST).lower(),
        _text(places, "volume_id", "serial"),
    )


def _is_gone(facts: Mapping[str, Any]) -> bool:
    """Whether a row is of a volume that was detached. Databases keep such rows, and mark them."""
    states = [facts.get(field) for field in ("status", "attach_status")]
    return str(facts.get("deleted") or 0).lower() not in ("0", "false") or any(
        isinstance(state, str) and state.lower() in _GONE for state in states
    )


def _text(places: Sequence[Mapping[str, Any]], *fields: str) -> str:
    """The first of *fields* that is a text, in the first of *places* that has one; ''."""
    found = (place.get(field) for place in places for field in fields)
    return next((text for text in found if isinstance(text, str) and text), "")
