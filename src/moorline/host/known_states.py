"""Where the state directories of this host lie, as their owners note it.

Notes are gone after a reboot: whoever next owns a state makes its one anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from moorline.host.filelock import run_directory

_NOTE = "state-"


class KnownStates:
    """The notes in a directory that all processes of this user have in common."""

    def __init__(self, directory: Path | None = None) -> None:
        """*directory*: made if need be. None: that of the file locks."""
        self._directory = directory or run_directory()

    def note(self, id: str, state_dir: Path) -> None:
        """Note that the state *id* lies in *state_dir*; without effect where nothing can be noted:
        then nothing can be locked either, and nobody attaches.
        """
        at = self._directory / f"{_NOTE}{id}"
        with suppress(OSError):
            self._directory.mkdir(mode=0o755, exist_ok=True)
            if _read(at) != str(state_dir):
                at.write_text(f"{state_dir}\n")
                for other, lies in self.all():
                    if not lies.exists():
                        (self._directory / f"{_NOTE}{other}").unlink(missing_ok=True)

    def all(self) -> Sequence[tuple[str, Path]]:
        """The ids of all that were noted, and where they lay then."""
        notes = sorted(self._directory.glob(f"{_NOTE}*"))
        return [
            (note.name.removeprefix(_NOTE), Path(lies)) for note in notes if (lies := _read(note))
        ]


def _read(note: Path) -> str:
    try:
        return note.read_text().strip("\n")
    except (OSError, UnicodeDecodeError):
        return ""
