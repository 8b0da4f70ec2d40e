"""The id of the request that the current code serves, for the log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_CURRENT: ContextVar[str] = ContextVar("request_id", default="")


@contextmanager
def request_id(id: str) -> Iterator[None]:
    """Mark what is done within as done for the request *id*."""
    token = _CURRENT.set(id)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def current() -> str:
    """The id of the request that is served; '' if none is."""
    return _CURRENT.get()
