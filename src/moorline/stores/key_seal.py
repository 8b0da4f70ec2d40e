"""Encrypts what the store keeps of connections; a host's own with the one key of its state."""

from __future__ import annotations

import os
from typing import Protocol

from moorline.errors import Unavailable
from moorline.secret import Secret

_NONCE_BYTES = 12


class Seal(Protocol):
    """Encrypts texts for the store, and decrypts them. Each is bound to its entry's key."""

    def seal(self, at: str, text: bytes) -> bytes: ...

    def open(self, at: str, sealed: bytes) -> bytes:
        """Raises Unavailable: it is encrypted for another key, or for another entry."""

    def fits(self, at: str, sealed: bytes) -> bool:
        """Whether it is encrypted for all who are to open it now. Raises Refused: nobody is to."""


class KeySeal:
    """AES-256-GCM with the one key of a host's own store."""

    def __init__(self, key: Secret[bytes]) -> None:
        # Imported here, as `moorline --help` does not need it.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._aead = AESGCM(key.reveal())

    def seal(self, at: str, text: bytes) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, text, at.encode())

    def open(self, at: str, sealed: bytes) -> bytes:
        from cryptography.exceptions import InvalidTag

        try:
            return self._aead.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], at.encode())
        except InvalidTag as e:
            raise Unavailable(
                f"the connection of {at} is sealed with another key",
                hint="restore the key file that belongs to this state directory",
            ) from e

    def fits(self, at: str, sealed: bytes) -> bool:
        return True  # there is one key: what does not open with it, nobody can seal anew
