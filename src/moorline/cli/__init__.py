"""The command line: parse, call the façade, print."""

from __future__ import annotations

import gc
import os
import sys

FAST = ("list", "attach")
"""Try :mod:`moorline.cli.fast_path`, which needs no click."""


def main() -> None:
    """What the shell starts. Never returns."""
    if sys.argv[1:] and sys.argv[1] in FAST:
        _fast()
    from moorline.cli import group

    group.main(prog_name="moorline")


def _fast() -> None:
    """Do it and end, or return: the slow path has to be taken, and nothing was done."""
    # What is loaded here is no garbage, and it is not taken apart again at the end: a seventh
    # of what the command takes. All that it printed is flushed.
    gc.disable()
    from moorline.cli import fast_path  # a third of what the other commands load

    code = fast_path.run(sys.argv[1:])
    if code is not None:
        os._exit(code)
    gc.enable()
