"""Exit codes: which error ends a command with which."""

from __future__ import annotations

from moorline import errors
from moorline.errors import MoorlineError

TYPE_CHECKING = False  # typing is left to mypy: what each command loads is kept small
if TYPE_CHECKING:
    from collections.abc import Iterable

EXIT_CODES: dict[type[MoorlineError], int] = {
    errors.Uncertain: 6,
    errors.Failed: 5,
    errors.Unavailable: 11,
    errors.Busy: 8,
    errors.NotOurs: 7,
    errors.Denied: 9,
    errors.Refused: 3,
    errors.NotFound: 4,
}
"""From the one after which most has to be looked at."""
EXIT_FOUND = 10
"""Of doctor, diff and config check, if they found something."""
EXIT_INTERRUPTED = 130
EXIT_READER_GONE = 141
"""As a shell tells of a program that SIGPIPE ended: ``moorline list | head -1``."""


def exit_code(error: MoorlineError) -> int:
    """The code of the nearest family that has one; an error of no family is uncertain."""
    families = (EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES)
    return next(families, EXIT_CODES[errors.Uncertain])


def gravest(kinds: Iterable[str]) -> int:
    """The code of the worst of the errors of these kinds; 0: there is none.

    A kind that is not known, of a defect or of a later version's agent, is uncertain.
    """
    codes = {exit_code(errors.BY_KIND.get(kind, errors.Uncertain)("")) for kind in kinds}
    return next((code for code in EXIT_CODES.values() if code in codes), 0)
