"""Which request the code that runs serves: for the log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_CURRENT: ContextVar[str] = ContextVar("request_id", default="")


@contextmanager
def request_id(id: str) -> Iterator[None]:
    """Everything that is done within is done for the request *id*."""
    token = _CURRENT.set(id)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def current() -> str:
    """The request that is served here; '' if none is."""
    return _CURRENT.get()
