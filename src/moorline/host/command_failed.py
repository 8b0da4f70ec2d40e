"""A command that ran and did not succeed, and how its output is shown to people."""

from __future__ import annotations

from moorline.errors import Failed

_MAX_SHOWN_CHARACTERS = 500


class CommandFailed(Failed):
    """A command ran and did not succeed."""

    def __init__(self, program: str, status: int, stderr: str) -> None:
        how = f"exited {status}" if status >= 0 else f"was killed by signal {-status}"
        said = f": {shown(stderr)}" if stderr.strip() else ""
        super().__init__(f"{program} {how}{said}")
        self.status = status
        """The exit status; negative: the signal that ended it."""
        self.stderr = stderr


def shown(text: str) -> str:
    """The end of a command's output, on one line."""
    line = "; ".join(line.strip() for line in text.splitlines() if line.strip())
    line = "".join(char if char.isprintable() else "?" for char in line)
    return line if len(line) <= _MAX_SHOWN_CHARACTERS else f"…{line[-_MAX_SHOWN_CHARACTERS:]}"
