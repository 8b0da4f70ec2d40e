"""The locked file beside a mount point that tells of a mount command, whoever started it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from moorline.ports import Host, IsIts


def hold_file(at: Path) -> Path:
    """The file beside the mount point *at*."""
    return at.with_name(f"{at.name}.lock")


@dataclass(frozen=True, slots=True)
class Hold:
    """Who has the file of *at* locked, while nothing is mounted there.

    *is_its*: whether a mount, wherever it is, may be one that was made at *at*.
    """

    host: Host
    at: Path
    is_its: IsIts

    def held(self) -> bool:
        """Whether a command, or a client that it left, may mount there still.

        A client whose mount lives on elsewhere has the file locked, and will not.
        """
        file = hold_file(self.at)
        return self.host.held(file) and not self.host.only_serves(file, self.at, self.is_its)

    def holders(self) -> str:
        """Who has it, as the end of a sentence."""
        holders = ", ".join(self.host.users_of(hold_file(self.at)))
        return f": {holders}" if holders else ""

    def renew(self) -> None:
        """Give the next command a file of its own, if clients have the old one that do not hold.

        Raises nothing: what cannot be removed is locked, which the command meets.
        """
        if self.host.held(hold_file(self.at)) and not self.held():
            self.remove()

    def remove(self) -> None:
        """Remove the file, for good or for a new one."""
        with suppress(OSError):
            hold_file(self.at).unlink()
