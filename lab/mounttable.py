"""Starts a command that sees the lab's mounts as the kernel's own: ``nfs4`` for ``fuse.nfs4``.

This kernel may know neither NFS nor GPFS, and the mount table always shows ``fuse.TYPE`` for
what a FUSE daemon serves. The command reads a table of its own, in which TYPES stand without
``fuse.``; all else about the mounts is real, and nobody else sees a difference. It keeps the
process id that it was started with.

The table is the one of the moment when the command started: for shares that are mounted
already, not for what the command mounts.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

TYPES = ("nfs4", "gpfs")
_FUSE = re.compile(rf" - fuse\.({'|'.join(TYPES)}) ")


def before() -> tuple[str, ...]:
    """What to put in front of a command. Needs root."""
    unshare = ("unshare", "--mount", "--propagation", "slave", "--")
    return (*unshare, sys.executable, "-m", "lab.mounttable")


def main(argv: list[str]) -> None:
    table = Path(f"/proc/{os.getpid()}/mountinfo")
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(_FUSE.sub(r" - \1 ", table.read_text()))
        file.flush()
        subprocess.run(["mount", "--no-mtab", "--bind", file.name, str(table)], check=True)
    os.execvp(argv[0], argv)


if __name__ == "__main__":
    main(sys.argv[1:])
