"""Writes attachments as bytes and reads them; their connections are encrypted."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from moorline.errors import Refused, Unavailable
from moorline.model import Attachment, DiskOptions, GuestId, Key, Level, LinkName, VolumeId
from moorline.ports import Entry
from moorline.secret import Secret
from moorline.stores.key_files import write_new
from moorline.stores.key_seal import KeySeal, Seal

_KEY_BYTES = 32
"""Bytes of the key file."""


class Codec:
    """Writes attachments as JSON, the connection sealed.

    The whole connection is sealed, not chosen fields of it: back ends put
    credentials into ordinary ones (Virtuozzo's ``export``, for example). The
    seal is bound to the entry's key, so a value copied to another key does not
    open.
    """

    def __init__(self, seal: Seal | Secret[bytes]) -> None:
        self._seal = KeySeal(seal) if isinstance(seal, Secret) else seal

    @classmethod
    def from_file(cls, path: Path, *, make: bool = True) -> Codec:
        """Open the key file. If it is missing: *make* it, or use a new key that is not kept.

        Raises Unavailable if it cannot be read or is not one.
        """
        try:
            if make and not path.exists():
                with suppress(Refused):  # someone was faster
                    write_new(path, os.urandom(_KEY_BYTES))
            key = path.read_bytes() if make or path.exists() else os.urandom(_KEY_BYTES)
        except OSError as e:
            raise Unavailable(f"the key file {path} cannot be read: {e.strerror}") from e
        if len(key) != _KEY_BYTES:
            raise Unavailable(
                f"{path} is not a key file: it has {len(key)} bytes, not {_KEY_BYTES}"
            )
        return cls(Secret(key))

    def encode(self, at: str, attachment: Attachment) -> bytes:
        """Return the stored form of *attachment* under the store key *at*."""
        text = json.dumps(attachment.connection.reveal()).encode()
        sealed = self._seal.seal(at, text)
        return json.dumps(
            {
                "host": attachment.key.host,
                "volume": attachment.key.volume,
                "guest": attachment.key.guest,
                "guest_name": attachment.guest_name,
                "backend": attachment.backend,
                "connection": base64.b64encode(sealed).decode(),
                "link": attachment.link,
                "place": attachment.place,
                "want": attachment.want.name,
                # Only what is asked for: an earlier version does not know all of them.
                "options": attachment.options.asked(),
                "since": attachment.since,
                "hands_off": attachment.hands_off,
                "link_only": attachment.link_only,
                "label": attachment.label,
            }
        ).encode()

    def decode(self, entry: Entry) -> Attachment:
        """Return the attachment in *entry*.

        Raises Unavailable if the key does not fit, or a newer version recorded it.
        """
        stored = json.loads(entry.value)
        return Attachment(
            key=Key(stored["host"], VolumeId(stored["volume"]), GuestId(stored["guest"])),
            guest_name=stored["guest_name"],
            backend=stored["backend"],
            connection=Secret(self._open(entry.key, stored["connection"])),
            link=LinkName(stored["link"]),
            place=stored["place"],
            want=Level[stored["want"]],
            options=_options(stored["options"]),
            since=stored["since"],
            # Older rows have none of these.
            label=stored.get("label", ""),
            hands_off=stored.get("hands_off", False),
            link_only=stored.get("link_only", stored["want"] == Level.CONNECTED.name),
            revision=entry.revision,
        )

    def fits(self, entry: Entry) -> bool:
        """Whether it is sealed for all who are to read it now. Raises Refused: nobody is to."""
        return self._seal.fits(entry.key, base64.b64decode(json.loads(entry.value)["connection"]))

    def _open(self, at: str, sealed: str) -> Mapping[str, Any]:
        connection: Mapping[str, Any] = json.loads(self._seal.open(at, base64.b64decode(sealed)))
        return connection


def _options(recorded: Mapping[str, Any]) -> DiskOptions:
    known = {field.name for field in fields(DiskOptions)}
    if unknown := sorted(recorded.keys() - known):
        raise Unavailable(
            f"an attachment was recorded by a newer version of Moorline, with {', '.join(unknown)}",
            hint="install that version again",
        )
    return DiskOptions(**recorded)
