"""This terminal, joined to the console of a virtual machine, which is a socket here."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import termios
import tty
from collections.abc import Iterator
from pathlib import Path

from lab.machine.qga import reachable

ENDS = b"\x1d"
"""Ctrl-]: what is typed after it does not come to the machine."""


def join(path: Path) -> bool:
    """Carry what is typed and what is said; False: the machine is gone, not the one who types."""
    with socket.socket(socket.AF_UNIX) as channel, reachable(path) as address, _raw():
        try:
            channel.connect(address)
        except OSError:
            return False
        channel.sendall(b"\n")
        while True:
            ready, _, _ = select.select([channel, sys.stdin], [], [])
            if channel in ready:
                if not (said := channel.recv(65536)):
                    return False
                os.write(sys.stdout.fileno(), said)
            if sys.stdin in ready:
                typed, end, _ = os.read(sys.stdin.fileno(), 1024).partition(ENDS)
                channel.sendall(typed)
                if end or not typed:
                    return True


@contextlib.contextmanager
def _raw() -> Iterator[None]:
    """While each key goes to the machine; nothing changes where no terminal is."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setraw(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
