"""Text that never prints itself."""

from __future__ import annotations

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
