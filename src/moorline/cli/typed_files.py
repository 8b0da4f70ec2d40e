"""Looks at files that a person names: one may be a pipe, or lie on a share that hangs.

A look is made in a thread that may hang, so that the command need not: no share can keep a
process from ending.
"""
# pathlib takes as long to load as all of this:
# ruff: noqa: PTH100, PTH111, PTH116, PTH120, PTH123

from __future__ import annotations

import os
import stat
import threading

from moorline.errors import Refused, Unavailable

TYPE_CHECKING = False  # typing is left to mypy: what each command loads is kept small
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")

ANSWER_TIMEOUT_SECONDS = 10.0
"""How long a file may take to answer, and a pipe to be opened by whoever writes to it."""


def read(path: str, most_bytes: int, patience: float = ANSWER_TIMEOUT_SECONDS) -> bytes:
    """Read a file or a pipe; of one that is larger, one byte more than *most_bytes*.

    A pipe that somebody writes to is read to its end, however long that takes (``<(openstack …)``).
    Raises OSError, Unavailable (it does not answer).
    """
    file, is_pipe = answered(path, lambda: _open(path), patience)
    with open(file, "rb") as stream:
        if is_pipe:
            return stream.read(most_bytes + 1)
        return answered(path, lambda: stream.read(most_bytes + 1), patience)


def is_regular(path: str) -> bool:
    """Whether *path* leads to a regular file. Raises Unavailable (it does not answer)."""

    def look() -> bool:
        try:
            return stat.S_ISREG(os.stat(path).st_mode)
        except (OSError, ValueError):
            return False

    return answered(path, look)


def demand_directory(path: str) -> None:
    """Look whether *path* answers, or what is nearest above it if it is not there yet.

    Raises Refused (it can be no directory), Unavailable (it does not answer).
    """

    def look() -> None:
        at = os.path.abspath(path)
        while True:
            try:
                # Nothing remembers this answer, as the kernel does that of stat(2).
                os.statvfs(at)
            except FileNotFoundError:
                at = os.path.dirname(at)
            except (PermissionError, NotADirectoryError):
                return  # whoever opens it says so
            else:
                return

    try:
        path.encode()
        answered(path, look)
    except OSError as e:
        raise Refused(f"the state directory {path:.200} cannot be used: {e.strerror}") from e
    except ValueError as e:
        raise Refused("the name of the state directory is not UTF-8, or has a NUL") from e


def demand_home() -> None:
    """Look whether the home directory answers: configuration is looked for there, too.

    Raises Unavailable (it does not answer).
    """
    home = os.path.expanduser("~")
    try:
        answered(home, lambda: os.path.lexists(f"{home}/.moorline"))
    except Unavailable as e:
        raise Unavailable(
            f"the home directory {e.message}",
            hint="configuration is looked for there, too; HOME=/ in the environment is another",
        ) from None


def refuse_pipe(path: str) -> None:
    """Refuse what can be read only once. Raises Refused, Unavailable (it does not answer)."""

    def look() -> bool:
        try:
            return stat.S_ISFIFO(os.stat(path).st_mode)
        except (OSError, ValueError):
            return False  # whoever opens it says why it cannot be

    if answered(path, look):
        raise Refused(f"{path} is a pipe, and is read more than once", hint="give a file")


def answered(path: str, ask: Callable[[], T], patience: float = ANSWER_TIMEOUT_SECONDS) -> T:
    """Return or raise what *ask* does. Raises Unavailable after *patience* seconds."""
    told: list[T] = []
    raised: list[Exception] = []

    def run() -> None:
        try:
            told.append(ask())
        except Exception as e:  # noqa: BLE001 - it is raised to the caller
            raised.append(e)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(patience)
    if raised:
        raise raised[0]
    if not told:
        raise Unavailable(
            f"{path} did not answer within {patience:.0f} s",
            hint="is it a pipe that nobody writes to, or on a share that hangs?",
        )
    return told[0]


def _open(path: str) -> tuple[int, bool]:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
    return file, stat.S_ISFIFO(os.fstat(file).st_mode)
