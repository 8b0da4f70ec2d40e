"""Text for others to read: without passwords, logons and users' names, and with nothing hidden."""

from __future__ import annotations

import re

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


def quotable(typed: str) -> str:
    """What was typed, to tell it from others in a message.

    Of a URL its kind, and the file's name where there is no room for a password in it.
    """
    scheme, url, rest = typed.partition("://")
    if not url:
        return typed
    _, path, file = rest.rpartition("/")
    return f"{scheme}://…/{file if path and not set(rest) & set('@:?') else ''}"


def visible(text: str, keep: str = "") -> str:
    """*text* in which nothing is hidden: no control character that a terminal would obey, none
    that turns the direction of writing. Those in *keep* stay.
    """
    if text.isprintable():
        return text
    shown = (c if c.isprintable() or c in keep else c.encode("unicode-escape") for c in text)
    return "".join(c if isinstance(c, str) else c.decode() for c in shown)


def names_user(option: str) -> bool:
    """Whether an option of that name has the name of a user with a password."""
    return _USER.search(f"{option}=x") is not None


def _without_users(text: str) -> str:
    return _USER.sub(_hidden, redacted(text))


def _hidden(found: re.Match[str]) -> str:
    quote = found["quote"] or ""
    return f"{found['name']}{quote}***{quote}"
