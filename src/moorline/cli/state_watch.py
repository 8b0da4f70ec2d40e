"""Ends a command whose state directory answers no more, wherever the command hangs by then."""

from __future__ import annotations

import os
import sys
import threading

from moorline.cli import typed_files
from moorline.errors import MoorlineError, Unavailable, Uncertain

TYPE_CHECKING = False  # typing is left to mypy: what each command loads is kept small
if TYPE_CHECKING:
    from collections.abc import Callable

_EVERY_SECONDS = 1.0
"""Between an answer and the next look."""


class StateWatch:
    """Looks again and again, in a thread, whether the state directory answers.

    A call on a share that hangs cannot be interrupted, nor be made elsewhere where the store is
    what hangs; so the process is ended from beside it. It is then as if it had been killed.
    """

    def __init__(self, tell: Callable[[MoorlineError], int]) -> None:
        """*tell* prints the error, and returns the exit code that belongs to it."""
        self._tell = tell
        self._over = threading.Event()
        self._path = ""
        self._changes = False

    def begin(self, path: str, *, changes: bool) -> None:
        """From now on *path* is watched. *changes*: the command may change something."""
        begun = self._path != ""
        self._path, self._changes = path, self._changes or changes
        if not begun:
            threading.Thread(target=self._watch, daemon=True).start()

    def end(self) -> None:
        """The command is over."""
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(_EVERY_SECONDS):
            try:
                typed_files.demand_directory(self._path)
            except Unavailable as e:
                self._give_up(e)
            except MoorlineError:
                pass  # it answers; what is wrong with it the command meets itself

    def _give_up(self, error: MoorlineError) -> None:
        if self._over.is_set():
            return
        if self._changes:
            error = Uncertain(
                f"{error.message}, and it was given up: what was under way may be done",
                hint="look again once it answers; repeating the command is safe",
            )
        code = self._tell(error)
        sys.stderr.flush()
        os._exit(code)
