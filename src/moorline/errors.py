"""The errors of Moorline: four families, by whether it may have happened.

::

    MoorlineError
    ├── Refused        nothing changed, and trying again will not help
    │   ├── NotFound   the guest or the volume is not known here
    │   └── Denied     the caller or this process may not do it
    ├── Failed         it surely did not happen; trying again later may help
    │   ├── Conflict   somebody else wrote first (compare-and-swap)
    │   ├── Busy       another owner holds this host, or a lock is occupied
    │   ├── Unavailable  a service (store, libvirt) cannot be reached
    │   └── Compacted  the history asked for is gone: list again
    ├── Uncertain      it may have happened: look again before acting
    └── NotOurs        what is there belongs to someone else: ask a person

Callers decide by the class, never by the text. The text is for people: what is
not done, for which volume and guest, why, and what to do next (the *hint*).
"""

from __future__ import annotations

from contextlib import contextmanager

TYPE_CHECKING = False  # typing is left to mypy: what each command loads is kept small
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any, Self


class MoorlineError(Exception):
    """Base of all errors that Moorline raises on purpose."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.volume = ""
        """The volume that it is about, by its id; '': of none, or it is not known."""
        self.guest = ""
        """The guest that it is about, by its name; ''."""

    def about(self, volume: str = "", guest: str = "") -> Self:
        """Say which volume and guest it is about, where that was not said nearer to it."""
        self.volume, self.guest = self.volume or volume, self.guest or guest
        return self

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    @property
    def kind(self) -> str:
        """The nearest class of this module, in small letters: what programs are told."""
        return next(
            base.__name__.lower() for base in type(self).__mro__ if base.__module__ == __name__
        )


@contextmanager
def told_about(volume: str, guest: str) -> Iterator[None]:
    """Let each error of what is done within say which volume and guest it is about."""
    try:
        yield
    except MoorlineError as e:
        e.about(volume, guest)
        raise


class Refused(MoorlineError):
    """Nothing changed. The same request will be refused again."""


class NotFound(Refused):
    """The guest, volume or attachment that was named is not known here."""


class Denied(Refused):
    """Permission is missing: of the caller, or of this process."""


class Failed(MoorlineError):
    """It surely did not happen. Trying again later may help."""


class Conflict(Failed):
    """A compare-and-swap lost: *current* is what is there now, by key."""

    def __init__(self, message: str, *, current: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.current = dict(current or {})


class Busy(Failed):
    """Someone else is at it: another owner of this host, or another step."""


class Unavailable(Failed):
    """A service that is needed does not answer; nothing was changed, and no attachment recorded."""


class Compacted(Failed):
    """The store no longer has the history that was asked for: list again."""


class Uncertain(MoorlineError):
    """It may have happened. Look again before doing anything else."""


class NotOurs(MoorlineError):
    """What is there was made by someone else. A person must decide."""


BY_KIND: dict[str, type[MoorlineError]] = {
    each.__name__.lower(): each
    for each in [*globals().values()]
    if isinstance(each, type) and issubclass(each, MoorlineError)
}
"""The classes above, by :attr:`MoorlineError.kind`."""
