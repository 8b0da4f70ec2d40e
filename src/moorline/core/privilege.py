"""On whose behalf the current code acts: only root and our own user may name any host file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_TRUSTED: ContextVar[bool] = ContextVar("trusted", default=True)


@contextmanager
def acting_for(*, trusted: bool) -> Iterator[None]:
    """Mark what is done within as asked for by another; *trusted*: root, or the user we run as."""
    token = _TRUSTED.set(trusted)
    try:
        yield
    finally:
        _TRUSTED.reset(token)


def is_trusted() -> bool:
    """Whether root or our own user asks. A command without an agent always acts for those."""
    return _TRUSTED.get()
