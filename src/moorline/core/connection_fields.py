"""What every connection may say, whatever its back end: its volume's id, and how it is plugged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from moorline.core import luks, qos
from moorline.core.validation import check_value
from moorline.disk_options import validate
from moorline.errors import Refused
from moorline.model import DiskOptions, VolumeId, volume_id
from moorline.redaction import quotable

MAX_CONNECTION_BYTES = 64 << 10
"""Bytes of a connection as JSON; Cinder's have one or two thousand."""


def refuse_unstorable(connection: Mapping[str, Any]) -> None:
    """Refuse a connection that no back end could read or no store could keep."""
    try:
        check_value(connection)
        size = len(json.dumps(connection))
    except (TypeError, ValueError, RecursionError):
        raise Refused("the connection cannot be written as JSON") from None
    except Refused as e:
        raise Refused(f"the connection cannot be used: {e.message}") from None
    if size > MAX_CONNECTION_BYTES:
        raise Refused(f"the connection has more than {MAX_CONNECTION_BYTES} bytes as JSON")


def disk_options(
    asked: DiskOptions, connection: Mapping[str, Any], *, hands_off: bool
) -> DiskOptions:
    """The options, with those fields heeded that Cinder sends for every kind. Raises Refused."""
    for encrypted in _told(connection, "encrypted"):
        if not isinstance(encrypted, bool):
            raise Refused("the connection's encrypted is not true or false")
        # Nova has the keys of what it plugs itself, and QEMU deciphers.
        if encrypted and not hands_off and not luks.is_luks(connection):
            # The guest would get the cipher text for a blank disk, and format it.
            raise Refused(
                "the volume is encrypted, and without its key the guest would see cipher text",
                hint=luks.HOW,
            )
    if luks.is_luks(connection) and not hands_off:
        luks.demand_key(connection)
    if not all(isinstance(discard, bool) for discard in _told(connection, "discard")):
        raise Refused("the connection's discard is not true or false")
    modes = _told(connection, "access_mode")
    if any(mode not in ("rw", "ro") for mode in modes):
        raise Refused("the connection's access_mode is not rw or ro")
    options = replace(asked, readonly=True) if "ro" in modes else asked
    if not hands_off:  # Nova reads them itself
        found = _limits(connection)
        if asked.limits() is None:  # a person's own are instead of the connection's
            options = replace(options, **found)
    validate(options)
    return options


def _limits(connection: Mapping[str, Any]) -> dict[str, Any]:
    told = _told(connection, "qos_specs")
    if len(told) > 1 and told[0] != told[1]:
        raise Refused("the connection has qos_specs twice, and they differ")
    if not told:
        return {}
    sizes = _told(connection, "size")
    found: dict[str, Any] = qos.limits(told[0], sizes[0] if sizes else None)
    validate(DiskOptions(**found))
    return found


def _told(connection: Mapping[str, Any], *fields: str) -> list[Any]:
    """The values of *fields*, in the connection's data or beside it (where Nova adds some).

    Null values are left out: Cinder sends null where there is nothing to say.
    """
    data = connection.get("data")
    places = (data, connection) if isinstance(data, Mapping) else (connection,)
    values = (place.get(field) for field in fields for place in places)
    return [value for value in values if value is not None]


def told_id(connection: Mapping[str, Any]) -> VolumeId | None:
    """The volume's id as the connection has it; None: it has none.

    Raises Refused: it is unusable.
    """
    ids = [usable_id(value) for value in _told(connection, "volume_id", "serial")]
    if len(set(ids)) > 1:
        both = " and ".join(sorted(set(ids)))
        raise Refused(f"the connection (volume_id, serial) names two volumes: {both}")
    return ids[0] if ids else None


def usable_id(id: object) -> VolumeId:
    """Return *id* if it can be a volume's. Raises Refused."""
    if usable := volume_id(id):
        return usable
    shown = repr(quotable(id)[:80]) if isinstance(id, str) else "what is no text"
    raise Refused(f"{shown} is no volume id: 1 to 64 of A-Z a-z 0-9 _ -")
