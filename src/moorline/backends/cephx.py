"""Keys of users of Ceph: as a connection has them, or a keyring of this host."""

from __future__ import annotations

import base64
import binascii
import configparser
from pathlib import Path

from moorline.backends.connection_info import ConnectionInfo
from moorline.errors import Failed, Refused
from moorline.secret import Secret

_MAX_KEYRING_BYTES = 16384
_LEAST_KEY_BYTES = 12
"""Of a key: its type, when it was made, and how long what follows is."""


def told(info: ConnectionInfo, user: str) -> Secret[str] | None:
    """The key that a connection has for *user*; None: it has none. Raises Refused.

    Older Cinders sent the text of a keyring (``keyring``, up to Ussuri); ``auth_key`` is ours.
    """
    if (text := info.value("keyring")) not in (None, ""):
        if not isinstance(text, str) or len(text) > _MAX_KEYRING_BYTES:
            raise Refused("the connection's keyring is odd")
        return _checked(_in_keyring(text, user), "the connection's keyring")
    if info.value("auth_key") in (None, ""):
        return None
    return _checked(info.text("auth_key"), "the connection's auth_key")


def kept(keyring: Path, user: str) -> Secret[str]:
    """The key of *user* in a keyring of this host. Raises Failed, Refused."""
    try:
        with keyring.open() as file:
            text = file.read(_MAX_KEYRING_BYTES)
    except (OSError, UnicodeDecodeError) as e:
        why = getattr(e, "strerror", None) or "it is no text"
        raise Failed(
            f"there is no key for the user of that image in {keyring}: {why}",
            hint=f"ceph auth get client.{user} -o {keyring}",
        ) from None
    return _checked(_in_keyring(text, user), str(keyring))


def _in_keyring(text: str, user: str) -> str:
    """The key of *user*; '': there is none."""
    keyring = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        keyring.read_string(text)
        return keyring.get(f"client.{user}", "key", fallback="")
    except configparser.Error:  # it would quote a line, which may be a key
        return ""


def _checked(key: str, where: str) -> Secret[str]:
    """Raises Refused: it is no key. It is not quoted."""
    try:
        whole = len(base64.b64decode(key, validate=True)) > _LEAST_KEY_BYTES
    except (binascii.Error, ValueError):
        whole = False
    if not whole:
        raise Refused(f"{where} has no key of the user, in base64 as `ceph auth get` prints it")
    return Secret(key)
