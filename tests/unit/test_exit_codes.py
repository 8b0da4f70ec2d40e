"""No error ends a command with 0, whichever version of Moorline it is an error of."""

from __future__ import annotations

import pytest

from moorline import errors
from moorline.cli import adopt
from moorline.errors import MoorlineError
from moorline.exit_codes import EXIT_CODES, exit_code, gravest
from moorline.local_api.http_errors import status
from moorline.ports.care_results import DiskOutcome

CLASSES = [each for each in vars(errors).values() if isinstance(each, type)]
KINDS = [kind for kind in CLASSES if issubclass(kind, MoorlineError)]


class OfAVendor(MoorlineError):
    """An error of none of the four families."""


@pytest.mark.parametrize("kind", [*KINDS, OfAVendor], ids=lambda kind: kind.__name__)
def test_each_error_has_a_code(kind: type[MoorlineError]) -> None:
    code = exit_code(kind("x"))
    assert code in EXIT_CODES.values()
    assert gravest([kind("x").kind]) == code
    assert status(kind("x")) >= 400


@pytest.mark.parametrize("first", EXIT_CODES)
@pytest.mark.parametrize("second", EXIT_CODES)
def test_of_two_errors_it_is_one_of_theirs(
    first: type[MoorlineError], second: type[MoorlineError]
) -> None:
    code = gravest([first("x").kind, second("x").kind])
    assert code in (EXIT_CODES[first], EXIT_CODES[second])
    assert code == gravest([second("x").kind, first("x").kind])


def test_the_one_that_may_have_happened_is_the_gravest() -> None:
    assert gravest([]) == 0
    assert gravest(["refused", "notours"]) == 7
    assert gravest(["refused", "failed"]) == 5
    assert gravest(["failed", "uncertain", "refused"]) == 6


@pytest.mark.parametrize("kind", ["defect", "of_a_later_version", ""])
def test_a_kind_that_is_not_known_is_no_success(kind: str) -> None:
    assert gravest([kind]) == EXIT_CODES[errors.Uncertain]


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        *(("adopted", 0), ("released", 0), ("due", 0), ("kept", 0), ("left", 0)),
        *(("unset", 3), ("refused", 3), ("notours", 7), ("of_a_later_agent", 6), ("", 6)),
    ],
)
def test_one_disk_of_many_ends_the_command(outcome: str, code: int) -> None:
    assert adopt.exit_code_of([DiskOutcome("web01", "id", outcome=outcome)]) == code
    both = [DiskOutcome("web01", "id", outcome=what) for what in ("adopted", outcome)]
    assert adopt.exit_code_of(both) == code
