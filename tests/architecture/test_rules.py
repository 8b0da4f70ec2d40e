"""House rules that can be read off the source."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRODUCT = sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "nova/src").rglob("*.py")])
LIMIT = 400
LONGER: dict[str, str] = {}
"""Files over the limit, each with its reason."""

STARTERS = re.compile(
    r"\b(subprocess|os\.(system|popen|exec\w*|spawn\w*|posix_spawn\w*|fork\w*)|pty)\b"
)


def relative(file: Path) -> str:
    return str(file.relative_to(ROOT))


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_processes_are_started_in_one_file() -> None:
    for file in PRODUCT:
        if relative(file) == "src/moorline/host/linux.py":
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names = {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = {node.module or ""}
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                names = {f"{node.value.id}.{node.attr}"}
            else:
                continue
            found = [name for name in names if STARTERS.search(name)]
            assert not found, f"{relative(file)} line {node.lineno}: {found}"


def test_no_file_is_too_long() -> None:
    for file in tracked():
        if file.suffix == ".py":
            lines = len(file.read_text().splitlines())
            assert lines <= LIMIT or relative(file) in LONGER, f"{relative(file)}: {lines} lines"


def test_no_reason_outlives_its_file() -> None:
    for name in LONGER:
        assert len((ROOT / name).read_text().splitlines()) > LIMIT, name


def test_nothing_names_this_machine_or_a_registry() -> None:
    forbidden = re.compile(r"(?<![\w.])/(work|farm)/|index-url|https?://\S+/simple\b|\.\./shared")
    for file in tracked():
        if file == Path(__file__) or file.suffix in (".png", ".gz"):
            continue
        for number, line in enumerate(file.read_text(errors="replace").splitlines(), 1):
            assert not forbidden.search(line), f"{relative(file)}:{number}: {line.strip()}"


def test_every_public_name_is_documented() -> None:
    for file in PRODUCT:
        tree = ast.parse(file.read_text())
        if not any(line for line in file.read_text().splitlines()):
            continue
        assert ast.get_docstring(tree), f"{relative(file)} has no docstring"
        for node in tree.body:
            public = isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name[0] != "_"
            if public and not _is_plain_value(node):
                assert ast.get_docstring(node), f"{relative(file)}: {node.name} has no docstring"


def _is_plain_value(node: ast.stmt) -> bool:
    """A dataclass whose fields say it all needs no sentence."""
    return isinstance(node, ast.ClassDef) and all(
        isinstance(item, ast.AnnAssign | ast.Pass) for item in node.body
    )
