"""On whose behalf the code that runs acts: not everybody may name this host's own files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_TRUSTED: ContextVar[bool] = ContextVar("trusted", default=True)


@contextmanager
def acting_for(*, trusted: bool) -> Iterator[None]:
    """All that is done within is done for somebody; *trusted*: root, or the user that we run as."""
    token = _TRUSTED.set(trusted)
    try:
        yield
    finally:
        _TRUSTED.reset(token)


def is_trusted() -> bool:
    """Whether it is root or our own user who asks. A command without an agent acts for those."""
    return _TRUSTED.get()
