"""QEMU's monitor (QMP) of a virtual machine: what is done to the machine, not in it."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import IO, Any

from lab.machine.qga import reachable

_SECONDS = 60.0
"""A busy machine's QEMU answers late."""


class Monitor:
    """The monitor at *path*. One user at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def do(self, command: str, **arguments: Any) -> Any:
        """Do *command*; what it returns. Raises OSError: there is no such QEMU, or it is gone."""
        with socket.socket(socket.AF_UNIX) as channel, reachable(self._path) as address:
            channel.settimeout(_SECONDS)
            channel.connect(address)
            with channel.makefile("rw") as lines:
                lines.readline()  # its greeting
                _ask(lines, "qmp_capabilities", {})
                return _ask(lines, command, arguments)


def _ask(lines: IO[str], command: str, arguments: dict[str, Any]) -> Any:
    lines.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
    lines.flush()
    while line := lines.readline():
        answer = json.loads(line)
        if "event" in answer:
            continue
        if "return" not in answer:
            raise RuntimeError(f"{command}: {answer}")
        return answer["return"]
    raise ConnectionError(f"{command}: closed")
