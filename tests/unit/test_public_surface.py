"""What is promised to programs that import Moorline."""

from __future__ import annotations

import subprocess
import sys

import pytest

import moorline
from moorline import errors


@pytest.mark.parametrize("name", moorline.__all__)
def test_each_name_is_there(name: str) -> None:
    assert getattr(moorline, name).__name__ == name


def test_the_four_families_and_their_base_are_named() -> None:
    kinds = errors.MoorlineError.__subclasses__()  # other tests have some of their own
    families = {kind.__name__ for kind in kinds if kind.__module__ == errors.__name__}
    assert families | {"MoorlineError"} <= set(moorline.__all__)


def test_what_is_not_named_is_not_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'attach'"):
        _ = moorline.attach


def test_importing_it_loads_nothing() -> None:
    code = "import sys; had = {*sys.modules}; import moorline; print(*{*sys.modules} - had)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [name for name in run.stdout.split() if name.startswith("moorline")] == ["moorline"]
