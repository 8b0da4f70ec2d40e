"""Errors to exit codes, HTTP statuses and JSON, and back to the same classes."""

from __future__ import annotations

from moorline import errors
from moorline.errors import MoorlineError

TYPE_CHECKING = False  # typing is left to mypy: what each command loads is kept small
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

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
STATUSES: dict[type[MoorlineError], int] = {
    errors.Refused: 422,
    errors.NotFound: 404,
    errors.Denied: 403,
    errors.Failed: 503,
    errors.Conflict: 409,
    errors.Busy: 423,
    errors.Compacted: 410,
    errors.Uncertain: 504,
    errors.NotOurs: 409,
}
_CLASSES: dict[str, type[MoorlineError]] = {
    kind.__name__.lower(): kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, MoorlineError)
}
KIND = "application/problem+json"
DEFECT = "defect"
"""The kind of an error that is none of our classes."""


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


def status(error: MoorlineError) -> int:
    """The HTTP status of the nearest family that has one."""
    return next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)


def to_problem(error: MoorlineError) -> dict[str, Any]:
    """An error as JSON; the keys are stable."""
    return {
        "error": error.kind,
        "code": exit_code(error),
        "message": error.message,
        "hint": error.hint,
        "volume": error.volume,
        "guest": error.guest,
    }


def from_problem(problem: Mapping[str, Any]) -> MoorlineError:
    """The error of a problem (:func:`to_problem`).

    A defect is Uncertain: it may have changed something.
    """
    message, hint = str(problem.get("message", "")), str(problem.get("hint", ""))
    volume, guest = str(problem.get("volume", "")), str(problem.get("guest", ""))
    kind = _CLASSES.get(str(problem.get("error")), errors.Uncertain)
    if issubclass(kind, errors.Conflict):
        return kind(message).about(volume, guest)
    return kind(message, hint=hint).about(volume, guest)
