"""Translates pypowervm's errors into Moorline's, by class and status, never by text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lxml import etree
from pypowervm import exceptions as pvm

from moorline.errors import Denied, Failed, MoorlineError, Unavailable, Uncertain

ERRORS = (pvm.Error, pvm.AbstractMsgFmtError, etree.LxmlError)
"""The two roots of pypowervm's exceptions, and what it lets through."""


@dataclass
class Change:
    """Whether a change is under way, of which the answer is not known yet."""

    sent: bool = False


@contextmanager
def told(what: str) -> Iterator[Change]:
    """Raise what goes wrong inside as our own error, beginning with *what*."""
    change = Change()
    try:
        yield change
    except ERRORS as error:
        raise failure(what, error, sent=change.sent) from error


def failure(what: str, error: Exception, *, sent: bool) -> MoorlineError:
    """Our error for *error*, by whether it may have happened. *sent*: a change was sent."""
    status = getattr(getattr(error, "response", None), "status", 0)
    message = f"{what}: {_reason(error)}"
    if isinstance(error, pvm.AuthFileReadError):
        return Denied(message, hint="run as a user who may read NovaLink's session files")
    if status == 401:
        return Denied(message, hint="check novalink_user and novalink_password_file in [powervm]")
    if status == 403:
        return Denied(message, hint="the session's user may not do that")
    if 400 <= status < 500:
        return Failed(message)
    if sent:
        return Uncertain(message)
    hint = "check novalink_ca in [powervm]" if isinstance(error, pvm.SSLError) else ""
    return Unavailable(message, hint=hint)


def _reason(error: Exception) -> str:
    said = getattr(error, "her_wrap", None)
    if said is not None and said.message:
        return f"NovaLink says {said.message!r} (HTTP {said.status})"
    if isinstance(error, (pvm.SSLError, pvm.ConnectionError, pvm.TimeoutError)):
        return _cause(error)
    return str(error)


def _cause(error: BaseException) -> str:
    """The error of the socket, which the libraries above it wrap in their own."""
    while beneath := error.__cause__ or error.__context__:
        error = beneath
    return str(getattr(error, "strerror", None) or error)
