"""Where the state directories of this host lie, as their owners note it.

Notes are gone after a reboot: whoever next owns a state makes its one anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from moorline.errors import Denied, Unavailable, Uncertain
from moorline.host.file_lock import make_own, run_directory
from moorline.model import is_uuid
from moorline.ports import Host


class KnownStates:
    """The notes in a directory that all processes of this user have in common."""

    def __init__(
        self, directory: Path | None = None, is_there: Callable[[Path], bool] = Path.exists
    ) -> None:
        """*directory*: made if need be. None: that of the file locks.

        *is_there* looks whether the directory of a state is there, which may lie on a share
        that hangs; it raises Unavailable then.
        """
        self.is_there = is_there
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
                    with suppress(Unavailable):  # what does not answer may be there
                        if not self.is_there(lies):
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


def look(host: Host, state_dir: Path) -> bool:
    """Whether *state_dir* is there, looked at by *host*. Raises Unavailable: it does not answer."""
    try:
        host.root(state_dir, list=True)
    except Uncertain as e:
        raise Unavailable(f"another state of this host cannot be looked at: {e}") from e
    except OSError:
        return state_dir.exists()
    return True


def _read(note: Path) -> str:
    try:
        return note.read_text().strip("\n")
    except (OSError, UnicodeDecodeError):
        return ""
