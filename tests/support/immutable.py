"""Mount points are immutable while nothing is mounted on them, which outlives a test's end."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def let_go(directory: Path) -> None:
    """Let what is below *directory* be removed."""
    # A mount point has mode 000 as well: so few directories are worth a process.
    if any(not os.lstat(at).st_mode & 0o777 for at, _, _ in os.walk(directory)):
        subprocess.run(["chattr", "-R", "-f", "-i", str(directory)], check=False)


def left(directory: Path) -> list[str]:
    """The immutable directories below *directory*."""
    listed = subprocess.run(
        ["lsattr", "-R", "-a", str(directory)], check=False, capture_output=True, text=True
    )
    entries = [line.partition(" ") for line in listed.stdout.splitlines()]
    return [
        at
        for flags, _, at in entries
        if "i" in flags and not flags.startswith("/") and not at.endswith("/.")
    ]
