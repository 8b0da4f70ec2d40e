"""Errors as HTTP statuses and JSON, and back to the same classes."""

from __future__ import annotations

from moorline import errors
from moorline.errors import MoorlineError
from moorline.exit_codes import exit_code

TYPE_CHECKING = False  # typing is left to mypy: what each command loads is kept small
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

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
KIND = "application/problem+json"
DEFECT = "defect"
"""The kind of an error that is none of our classes."""


def status(error: MoorlineError) -> int:
    """The HTTP status of the nearest family that has one; an error of no family is uncertain."""
    families = (STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)
    return next(families, STATUSES[errors.Uncertain])


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
    kind = errors.BY_KIND.get(str(problem.get("error")), errors.Uncertain)
    if issubclass(kind, errors.Conflict):
        return kind(message).about(volume, guest)
    return kind(message, hint=hint).about(volume, guest)
