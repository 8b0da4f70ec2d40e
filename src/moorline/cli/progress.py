"""What goes on, told to whoever waits for a command."""

from __future__ import annotations

import re
import sys
import threading
from contextlib import suppress

from moorline.cli.output import complain

_PERCENT = re.compile(r": (100|[0-9]{1,2}) %$")


class Progress:
    """Tells on stderr what goes on, once a command has taken longer than a second."""

    def __init__(self, quiet: bool, patience: float = 1.0, *, to_people: bool = True) -> None:
        """*to_people*: programs read standard error, and are told nothing but errors."""
        self.quiet = quiet
        self._latest = ""
        self._loud = False
        self._in_line = False
        self._timer = threading.Timer(patience, self._grow_loud)
        self._timer.daemon = True
        if to_people and not quiet:
            self._timer.start()

    def __call__(self, what: str) -> None:
        """Tell it, once; a percentage (``…: N %``) in one line on a terminal, else each tenth."""
        done = int(found[1]) if (found := _PERCENT.search(what)) else -1
        if found and self._loud and sys.stderr.isatty():
            bar = "#" * (done // 4)
            text = f"\r… {what[: found.start()]} [{bar:<25}] {done:3} %"
            self._write(text + "\n" * (done == 100))
            self._in_line = done < 100
        elif what != self._latest and (not found or done % 10 == 0):
            self._latest = what
            if self._loud:
                self._end_line()
                complain(f"… {what}")

    def end(self) -> None:
        self._timer.cancel()
        self._end_line()

    def _end_line(self) -> None:
        if self._in_line:
            self._in_line = False
            self._write("\n")

    def _write(self, text: str) -> None:
        with suppress(OSError):
            sys.stderr.write(text)
            sys.stderr.flush()

    def _grow_loud(self) -> None:
        self._loud = True
        if self._latest:
            complain(f"… {self._latest}")
