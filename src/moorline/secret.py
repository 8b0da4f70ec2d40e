"""Text that never prints itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Generic, NoReturn, TypeVar, final

from moorline.errors import Denied

T = TypeVar("T")


@final
class Secret(Generic[T]):
    """A value that only :meth:`reveal` gives away.

    It has no useful ``repr``, ``str`` or ``format`` and refuses to be pickled,
    so it cannot slip into a log line, an error, a lock name or a cache.
    """

    __slots__ = ("__value",)

    def __init__(self, value: T) -> None:
        self.__value = value

    def reveal(self) -> T:
        """Return the value. Call this only where it is handed to its consumer."""
        return self.__value

    def __repr__(self) -> str:
        return "Secret(***)"

    def __str__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.__value == other.reveal()

    def __hash__(self) -> int:
        # A hash of the value would be an oracle for guessing it.
        return hash(Secret)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled: seal it (moorline.stores.codec)")


def password_in(file: Path) -> Secret[str]:
    """Read a password from a file that is for its owner alone.

    Raises Denied: it cannot be read, others may read it, or there is none in it.
    """
    try:
        if file.stat().st_mode & 0o077:
            raise Denied(f"{file} can be read by others", hint=f"chmod 600 {file}")
        password = file.read_text().rstrip("\r\n")
    except OSError as error:
        raise Denied(f"the password file {file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        password = ""  # its bytes would be in the error
    if not password:
        raise Denied(f"there is no password in {file}")
    return Secret(password)


_VALUE = (
    r"[\"']?\s*[=:]\s*)(?:(?P<quote>\\?[\"'])(?:[^\\]|\\(?!\")[^\n])*?(?P=quote)"
    r"|(?:(?:Basic|Bearer|Digest)\s+)?[^\s,;&\"']+)"
)
"""What follows a name, and its value: to the closing quote, or to a blank or a comma."""
_PASSWORD = re.compile(
    r"(?P<name>(?<![A-Za-z])(?:pass(?:word|wd|phrase|code)?|pwd|psk|tokens?|cookie|authorization"
    r"|credentials?|secrets?|(?:(?:api|access|secret|private|shared|auth)[_-]?)key)\\?" + _VALUE,
    re.IGNORECASE,
)
_USER = re.compile(
    r"(?P<name>(?<![A-Za-z])(?<!mount_)(?:user(?:[_-]?(?:name|id))?|login|logon)\\?" + _VALUE,
    re.IGNORECASE,
)
_LOGON = re.compile(r"(?<=://)[^/\s]+@")
_MOUNTED = re.compile(r"(?P<before>^.* - \S+ )(?!quobyte@)[^/\s@]+(?=@)", re.MULTILINE)
"""A mount's source that begins with a user: of sshfs (``user@host:``), of CephFS."""
_CEPHX = re.compile(r"(?P<before>^.* - (?:fuse\.)?ceph\S* .*\bname=)[^,\s]+", re.MULTILINE)


def redacted(text: str) -> str:
    """*text* for others to read: what looks like a password or a logon is left out."""
    return _LOGON.sub("***@", _PASSWORD.sub(_hidden, text))


def anonymous(text: str) -> str:
    """As :func:`redacted`, and without what looks like a user's name for storage or a vCenter."""
    return _CEPHX.sub(r"\g<before>***", _MOUNTED.sub(r"\g<before>***", _without_users(text)))


def names_user(option: str) -> bool:
    """Whether an option of that name has the name of a user with a password."""
    return _USER.search(f"{option}=x") is not None


def _without_users(text: str) -> str:
    return _USER.sub(_hidden, redacted(text))


def _hidden(found: re.Match[str]) -> str:
    quote = found["quote"] or ""
    return f"{found['name']}{quote}***{quote}"
