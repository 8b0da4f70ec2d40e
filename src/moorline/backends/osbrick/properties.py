"""Reads what connections to block devices have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from moorline.backends.connection_info import ConnectionInfo
from moorline.errors import Refused
from moorline.model import Format

_GIB = 1 << 30
_MAX_SIZE_GIB = 1 << 23
"""GiB of a volume: 8 EiB is the most that a device can have."""
_FOR_OTHERS = frozenset({"driver_volume_type", "options"})


class BlockFacts(TypedDict):
    """Fields of a ``BlockVolume`` that every protocol reads alike."""

    size: int
    discard: bool
    format: Format


DECIPHERED: tuple[Format, ...] = ("raw", "luks")
"""The formats of devices: what is in them is the guest's, or deciphered for it."""


def properties_of(connection: Mapping[str, Any]) -> Mapping[str, Any]:
    """What os-brick is given: the data, without what is for others."""
    data = connection.get("data", connection)
    return {key: value for key, value in data.items() if key not in _FOR_OTHERS}


def block_facts(info: ConnectionInfo, formats: tuple[Format, ...] = ("raw",)) -> BlockFacts:
    """The volume's size, if it is told, its format, and whether it takes discards.

    Cinder's ``size`` is in GiB. Raises Refused.
    """
    info.refuse_options()
    format = info.format(formats) if info.has("format") else "raw"
    size = info.value("size") or 0
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _MAX_SIZE_GIB:
        raise Refused("the connection's size is not a number of GiB")
    return {"size": size * _GIB, "discard": info.value("discard") is True, "format": format}
