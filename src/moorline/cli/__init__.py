"""The command line: parse, call the façade, print."""

from __future__ import annotations

import gc
import os
import sys

_FAST = (["list"], ["attach"])
"""First words for which :mod:`moorline.cli.fast_path`, which needs no click, is tried."""
_HELP = (["--help"], ["-h"])


def main() -> None:
    """What the shell starts. Never returns."""
    try:
        _main()
    except KeyboardInterrupt:  # while the command is loaded: it tells all later ones itself
        if sys.stderr is not None:
            sys.stderr.write("moorline: interrupted\n")
        sys.exit(130)


def _main() -> None:
    if sys.stdout is not None:
        # A name that this terminal's letters do not have, or that is no text, is shown all the
        # same: what was asked is done by then. Standard error is so by itself.
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    words = sys.argv[1:]
    if words in _HELP or words[:1] in _FAST:
        # What is loaded here is no garbage, and the process ends without taking it apart again:
        # that is a seventh of the command's time. All that is printed is flushed.
        gc.disable()
        code = _help() if words in _HELP else _fast(words)
        if code is not None:
            os._exit(code)
        gc.enable()
    _all()


def _help() -> int:
    try:
        _all()
    except SystemExit as e:
        return int(e.code or 0)
    return 0


def _fast(words: list[str]) -> int | None:
    """Do it; None: the slow path has to be taken, and nothing was done."""
    from moorline.cli import fast_path  # a third of what the other commands load

    return fast_path.run(words)


def _all() -> None:
    from moorline.cli import commands

    commands.main(prog_name="moorline")
