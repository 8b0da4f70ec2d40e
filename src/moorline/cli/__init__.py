"""The command line: parse, call the façade, print."""

from __future__ import annotations


def main() -> None:
    """What the shell starts. Never returns."""
    from moorline.cli import fast_path

    fast_path.main()
