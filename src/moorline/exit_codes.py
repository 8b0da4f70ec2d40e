"""Exit codes: which error ends a command with which."""

from __future__ import annotations

from moorline import errors
from moorline.errors import MoorlineError

TYPE_CHECKING = False  # typing is left to mypy: what each command loads is kept small
if TYPE_CHECKING:
    from collections.abc import Iterable

EXIT_CODES: dict[type[MoorlineError], int] = {
    errors.Refused: 3,
    errors.NotFound: 4,
    errors.Failed: 5,
    errors.Uncertain: 6,
    errors.NotOurs: 7,
    errors.Busy: 8,
    errors.Denied: 9,
    errors.Unavailable: 11,
}
_BY_GRAVITY = (6, 5, 11, 8, 7, 9, 3, 4)
"""Exit codes from the one after which most has to be looked at."""
_CLASSES: dict[str, type[MoorlineError]] = {
    kind.__name__.lower(): kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, MoorlineError)
}


def exit_code(error: MoorlineError) -> int:
    """The code of the nearest family that has one."""
    return next(EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES)


def gravest(kinds: Iterable[str]) -> int:
    """The code of the worst of the errors of these kinds; 0: none is an error's.

    ``unset``, an option that is missing, is a refusal.
    """
    found = {"refused" if kind == "unset" else kind for kind in kinds}
    codes = {exit_code(_CLASSES[kind]("")) for kind in found & _CLASSES.keys()}
    return next((code for code in _BY_GRAVITY if code in codes), 0)
