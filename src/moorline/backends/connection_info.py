"""Reads a connection, which is untrusted: what is missing or odd is refused, never guessed."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from moorline.errors import Refused
from moorline.model import Format, VolumeId, volume_id

MAX_NAME_BYTES = 1024
"""Bytes of a file's name within its share, directories included."""
_MAX_PART_BYTES = 255


class ConnectionInfo:
    """Cinder's ``connection_info``: nested below ``data``, or flat as its attachments API has it.

    Errors name fields, and never quote one that may hold a password.
    """

    def __init__(self, kind: str, connection: Mapping[str, Any]) -> None:
        if not isinstance(connection, Mapping):
            raise Refused("the connection is not a mapping")
        if connection.get("driver_volume_type") != kind:
            raise Refused(f"the connection's driver_volume_type is not {kind!r}")
        data = connection.get("data", connection)
        if not isinstance(data, Mapping):
            raise Refused("the connection's data is not a mapping")
        self._connection = connection
        self._data = data

    def text(self, field: str, longest: int = MAX_NAME_BYTES) -> str:
        """The text in *field*, which must be there and printable. Raises Refused."""
        value = self._data.get(field)
        if value is None or value == "":
            raise Refused(f"the connection has no {field}")
        if not isinstance(value, str):
            raise Refused(f"the connection's {field} is not text")
        if not value.isprintable():
            raise Refused(f"the connection's {field} has characters that do not print")
        if len(value.encode()) > longest:
            raise Refused(f"the connection's {field} is longer than {longest} bytes")
        return value

    def has(self, field: str) -> bool:
        """Whether the field is there and not null."""
        return self._data.get(field) is not None

    def value(self, field: str) -> object:
        """The value of a field of any type; None: it is missing."""
        return self._data.get(field)

    def format(self, known: Sequence[Format]) -> Format:
        """The declared format, one of *known*."""
        if self._data.get("format") in (None, ""):
            raise Refused(
                "the connection does not say the format of the image",
                hint=f"formats are never probed; give one of {', '.join(known)}",
            )
        text = self.text("format")
        if text not in known:
            raise Refused(
                f"the format {text[:32]!r} is not supported here", hint=f"known: {', '.join(known)}"
            )
        return cast("Format", text)

    def file_name(self, field: str = "name") -> str:
        """The name of a file beneath a share; it cannot leave the share."""
        return file_name(self.text(field))

    def refuse_options(self) -> None:
        """Raise Refused if there are mount options. Cinder sends ``null`` where there are none."""
        if self._data.get("options"):
            raise Refused(
                "the connection has mount options, which this back end does not take",
                hint="configure them on the host",
            )

    def mount_options(self, known: Collection[str]) -> dict[str, str]:
        """Mount options, ``-o a,b=c`` or ``a,b=c``; a name that is not *known* is refused.

        Values may be credentials, so nothing of the options is quoted.
        """
        if not self._data.get("options"):
            return {}
        words = self.text("options", 4096).strip().removeprefix("-o").strip()
        options = {}
        for word in words.split(","):
            name, _, value = word.partition("=")
            if name.lower() not in known or re.search(r"\s-", value):
                raise Refused(
                    "the connection has a mount option that is not taken from connections",
                    hint=f"configure it on the host; known: {', '.join(sorted(known))}",
                )
            options[name.lower()] = value
        return options

    def volume_id(self) -> VolumeId | None:
        """The volume's id, wherever the connection has it; None: it has none that is usable.

        A new attachment with an unusable id is refused (:mod:`moorline.core.admission`). Older
        ones, made when it was ignored, must still be readable to be detached.
        """
        for place in (self._data, self._connection):
            for field in ("volume_id", "serial"):
                if id := volume_id(place.get(field)):
                    return id
        return None


def file_name(name: str) -> str:
    """Return *name* if it can be the path of a file beneath a share. Raises Refused."""
    shown = repr(name if len(name) <= 80 else f"{name[:80]}…")
    if name.startswith("/"):
        raise Refused(f"the name {shown} is absolute: it must be a file on the share")
    for part in name.split("/"):
        if part in ("", ".", ".."):
            raise Refused(f"the name {shown} does not stay on its share")
        if part.startswith("-"):
            raise Refused(f"the name {shown} looks like an option")
        if len(part.encode()) > _MAX_PART_BYTES:
            raise Refused(f"the name {shown} is too long for a file")
    return name


def typed(kind: str, data: Mapping[str, Any], format: Format | None) -> Mapping[str, Any]:
    """The connection, in Cinder's form, for what a person typed. Raises Refused."""
    if format is None:
        raise Refused(
            "the format of the image must be said",
            hint="formats are never probed: --format raw, qcow2 or another, as it was made",
        )
    return {"driver_volume_type": kind, "data": {**data, "format": format}}


def given_mounts(option: str, text: str) -> dict[str, Path]:
    """Where the operator mounts shares: ``SHARE=/path`` pairs, comma-separated. Raises Refused.

    A share may have commas in it, a path may not.
    """
    pairs = {}
    share = ""
    for part in filter(None, (part.strip() for part in text.split(","))):
        share = f"{share},{part}" if share else part
        if "=/" in part:
            name, _, path = share.rpartition("=")
            pairs[name] = Path(absolute_path(path))
            share = ""
    if share or "" in pairs:
        raise Refused(f"{option}: {share[:80]!r} is not SHARE=/path")
    return pairs


def absolute_path(path: str) -> str:
    """Return *path* if it is absolute and normalised. Raises Refused."""
    root, *parts = path.split("/")
    if root or not parts or {"", ".", ".."} & set(parts):
        raise Refused(f"{path[:80]!r} is not the plain absolute path of a file")
    return path
