"""The command line: parse, call the façade, print."""

from __future__ import annotations

import sys

FAST = ("list", "attach")
"""What may be done without click: :mod:`moorline.cli.fast_path`."""


def main() -> None:
    """What the shell starts. Never returns."""
    code = None
    if sys.argv[1:] and sys.argv[1] in FAST:
        from moorline.cli import fast_path  # a third of what others load, who do not need it

        code = fast_path.run(sys.argv[1:])
    if code is None:
        from moorline.cli import group

        group.main(prog_name="moorline")
    sys.exit(code)
