"""Sealed boxes: what is in the fleet's store can be read by the host that needs it, and made
by controllers, and by nobody else: not by etcd, its backups, or other hosts.

A box is sealed for some readers by a writer whom they know. Each has an X25519 key. A fresh
key seals the text (AES-256-GCM); for each reader that key is sealed with what only the reader
and the writer can work out (X25519 of a key that is used once, and of the writer's, through
HKDF-SHA256), together with a digest of the sealed text: so no reader can put another text
into the box. All of it is bound to the entry's key in the store: a box that is copied to
another entry does not open. An older box of the same entry does; who reads must look at the
entry's revision, as for all that is in the store.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Collection
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from moorline.errors import Refused, Unavailable
from moorline.secret import Secret
from moorline.stores.key_files import private, write_new

_KEY_BYTES = 32
_NONCE = bytes(12)
"""Always the same one: no key seals twice."""
_PURPOSE = b"moorline sealed box 1"


class BoxKey:
    """Who reads and writes boxes. Its public half may be known to all."""

    def __init__(self, key: Secret[bytes]) -> None:
        self._key = X25519PrivateKey.from_private_bytes(key.reveal())
        self.public = _text(self._key.public_key().public_bytes_raw())
        """As text; it is this key's name, too."""

    @classmethod
    def from_file(cls, path: Path) -> BoxKey:
        """Open the key file. Raises Denied (others can read it), Unavailable (it is none)."""
        key = private(path)
        if len(key.reveal()) != _KEY_BYTES:
            raise Unavailable(f"{path} is not the key of a sealed box")
        return cls(key)

    @classmethod
    def made(cls, path: Path) -> BoxKey:
        """The same, and make it if there is none."""
        if not path.exists():
            with suppress(Refused):  # someone was faster
                write_new(path, os.urandom(_KEY_BYTES))
        return cls.from_file(path)

    def shared(self, public: str) -> bytes:
        """What only the two can work out. Raises Unavailable (that is no public key)."""
        try:
            return self._key.exchange(X25519PublicKey.from_public_bytes(_bytes(public)))
        except ValueError:
            raise Unavailable("this is not the public key of a sealed box") from None


Keys = Callable[[str], Collection[str]]
"""Public keys, for an entry's key in the store. May raise as the store does."""


class SealedBox:
    """Seals for *readers*, and opens what one of *writers* sealed for us."""

    def __init__(self, own: BoxKey, readers: Keys, writers: Keys) -> None:
        self._own = own
        self._readers = readers
        self._writers = writers

    def seal(self, at: str, text: bytes) -> bytes:
        """Return what may be stored as the entry *at*."""
        content = os.urandom(_KEY_BYTES)
        sealed = AESGCM(content).encrypt(_NONCE, text, at.encode())
        once = BoxKey(Secret(os.urandom(_KEY_BYTES)))
        bound = _bound(at, sealed)
        box = {
            "from": self._own.public,
            "once": once.public,
            "for": {
                reader: _text(
                    _wrapping(
                        once.shared(reader) + self._own.shared(reader),
                        (once.public, self._own.public, reader),
                    ).encrypt(_NONCE, content, bound)
                )
                for reader in self._readers(at)
            },
            "sealed": _text(sealed),
        }
        return json.dumps(box).encode()

    def open(self, at: str, box: bytes) -> bytes:
        """Return the text of the entry *at*.

        Raises Unavailable: it is not for us, not from one who may write it, or not that entry's.
        """
        try:
            fields = json.loads(box)
            writer, once = fields["from"], fields["once"]
            wrapped = fields["for"].get(self._own.public)
            sealed = _bytes(fields["sealed"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise Unavailable(f"{at} is not a sealed box") from None
        if wrapped is None:
            raise Unavailable(
                f"{at} is sealed for another key",
                hint="this host's keys were replaced: restart its agent, if it was not since; what"
                " was sealed before is sealed anew by a controller, if one runs",
            )
        if writer not in self._writers(at):
            raise Unavailable(f"{at} was sealed by somebody who may not write it")
        wrapping = _wrapping(
            self._own.shared(once) + self._own.shared(writer), (once, writer, self._own.public)
        )
        try:
            content = wrapping.decrypt(_NONCE, _bytes(wrapped), _bound(at, sealed))
            return AESGCM(content).decrypt(_NONCE, sealed, at.encode())
        except (InvalidTag, ValueError):
            raise Unavailable(f"{at} was sealed as another entry, or changed since") from None

    def fits(self, at: str, box: bytes) -> bool:
        """Whether it is for all of its readers, as they are now. Raises as *readers* do."""
        readers = set(self._readers(at))
        try:
            return readers <= set(json.loads(box)["for"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return False


def for_host(own: BoxKey, fleet: str) -> SealedBox:
    """The box of a host: it reads and writes its own entries, as controllers do.

    *fleet*: the public key of the controllers, from when the host joined: not from the store.
    """
    return SealedBox(own, lambda at: (own.public, fleet), lambda at: (own.public, fleet))


def for_controllers(own: BoxKey, key_of: Callable[[str], str]) -> SealedBox:
    """The box of controllers: for each host's entries, that host's.

    *key_of*: the public key of a host; '' for one that was revoked. Then sealing raises Refused.
    """

    def readers(at: str) -> Collection[str]:
        if not (public := key_of(_host(at))):
            raise Refused(
                f"{_host(at)} is revoked: nothing is sealed for it", hint="enrol it again"
            )
        return own.public, public

    def writers(at: str) -> Collection[str]:
        return own.public, key_of(_host(at))

    return SealedBox(own, readers, writers)


def _host(at: str) -> str:
    """Whose entry it is: ``/moorline/KIND/HOST/…``."""
    parts = at.split("/")
    if len(parts) < 5:
        raise ValueError(f"{at} is no host's entry")
    return parts[3]


def _wrapping(shared: bytes, keys: Collection[str]) -> AESGCM:
    info = b"|".join([_PURPOSE, *(key.encode() for key in keys)])
    return AESGCM(HKDF(hashes.SHA256(), _KEY_BYTES, salt=None, info=info).derive(shared))


def _bound(at: str, sealed: bytes) -> bytes:
    return sha256(sealed).digest() + at.encode()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
