"""Where the state directories of this host lie, as their owners note it.

Notes are gone after a reboot: whoever next owns a state makes its one anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from moorline.errors import Denied
from moorline.host.file_lock import make_own, run_directory
from moorline.model import is_uuid


class KnownStates:
    """The notes in a directory that all processes of this user have in common."""

    def __init__(self, directory: Path | None = None) -> None:
        """*directory*: made if need be. None: that of the file locks."""
        self._run = directory or run_directory()
        self._notes = self._run / "states"

    def note(self, id: str, state_dir: Path) -> None:
        """Note that the state *id* lies in *state_dir*; without effect where nothing can be noted:
        then nothing can be locked either, and nobody attaches.
        """
        with suppress(OSError, Denied):
            self._make()
            if _read(self._notes / id) != str(state_dir):
                (self._notes / id).write_text(f"{state_dir}\n")
                for other, lies in self.all():
                    if not lies.exists():
                        (self._notes / other).unlink(missing_ok=True)

    def all(self) -> Sequence[tuple[str, Path]]:
        """The ids of all that were noted, and where they lay then."""
        try:
            self._make()
            notes = sorted(note for note in self._notes.iterdir() if is_uuid(note.name))
        except (OSError, Denied):
            return []
        return [(note.name, Path(lies)) for note in notes if (lies := _read(note))]

    def _make(self) -> None:
        """Raises OSError, Denied: what is another user's may lead anywhere."""
        make_own(self._run)
        make_own(self._notes)


def _read(note: Path) -> str:
    try:
        return note.read_text().strip("\n")
    except (OSError, UnicodeDecodeError):
        return ""
