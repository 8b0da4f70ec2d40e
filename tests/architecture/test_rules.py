"""House rules that can be read off the source."""

from __future__ import annotations

import ast
import re
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeGuard

import pytest

ROOT = Path(__file__).parents[2]
PRODUCT = sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "nova/src").rglob("*.py")])
LIMIT = 400
LONGER: dict[str, str] = {}
"""Files over the limit, each with its reason."""

STARTERS = re.compile(
    r"(subprocess|pty|multiprocessing|concurrent\.futures\.process)(\.|$)"
    r"|(asyncio\.create_subprocess|os\.(system|popen|exec|spawn|posix_spawn|fork))"
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
        if relative(file) != "src/moorline/host/linux.py":
            assert not list(starts(file.read_text())), relative(file)


@pytest.mark.parametrize(
    "code",
    [
        "import subprocess",
        "from subprocess import run",
        "import os\nos.fork()",
        "import os as system\nsystem.execv('a', [])",
        "from os import fork",
        "from os import posix_spawn as innocent",
        "import pty",
        "import multiprocessing",
        "from asyncio import create_subprocess_exec",
    ],
)
def test_every_way_to_start_a_process_is_seen(code: str) -> None:
    assert list(starts(code))


def aliased(tree: ast.AST) -> Mapping[str, str]:
    """The modules that are imported, by what they are called there."""
    return {
        alias.asname or alias.name: alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }


def starts(code: str) -> Iterator[str]:
    """What *code* names that starts processes, whatever it calls it."""
    tree = ast.parse(code)
    aliases = aliased(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            names = [f"{aliases.get(node.value.id, node.value.id)}.{node.attr}"]
        else:
            continue
        yield from (f"line {node.lineno}: {name}" for name in names if STARTERS.match(name))


CLOCKS = re.compile(r"time\.(monotonic|monotonic_ns|perf_counter|perf_counter_ns)$")
NO_WAITS = {
    "src/moorline/deadline.py": "it is what all others wait by",
    "src/moorline/agent/agent.py": "systemd is told when a reload began (sd_notify(3))",
}


def test_all_waiting_is_by_a_deadline() -> None:
    """Outside of deadline.py the monotonic clock measures: it is read, and a reading taken off."""
    for file in PRODUCT:
        if relative(file) not in NO_WAITS:
            assert not list(waits(file.read_text())), relative(file)


@pytest.mark.parametrize(
    "code",
    [
        "import time\nend = time.monotonic() + 5",
        "import time\nleft = end - time.monotonic()",
        "import time\nwhile time.monotonic() < end: pass",
        "import time\nlate = time.monotonic() - begun > 5",
        "import time\nnow = time.monotonic()\nlate = now > end",
        "import time\nwork(clock=time.monotonic)",
        "import time as t\nend = t.perf_counter() + 5",
        "from time import monotonic",
    ],
)
def test_every_way_to_wait_by_hand_is_seen(code: str) -> None:
    assert list(waits(code))


def test_what_only_measures_is_no_wait() -> None:
    assert not list(
        waits("import time\nbegun = time.monotonic()\nwork()\ntime.monotonic() - begun")
    )


def waits(code: str) -> Iterator[str]:
    """Where *code* does more with the monotonic clock than to say how long something took."""
    tree = ast.parse(code)
    aliases = aliased(tree)
    above = {below: node for node in ast.walk(tree) for below in ast.iter_child_nodes(node)}

    def is_call(node: ast.AST) -> bool:
        return isinstance(node, ast.Call) and is_clock(node.func, aliases)

    readings = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and is_call(node.value)
        for target in node.targets
        if isinstance(target, ast.Name)
    }

    def is_reading(node: ast.AST) -> bool:
        return is_call(node) or (isinstance(node, ast.Name) and node.id in readings)

    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            yield from (f"line {node.lineno}: {alias.name}" for alias in node.names)
        elif is_clock(node, aliases) and not is_call(above[node]):
            yield f"line {node.lineno}: the clock is handed on"
        elif is_reading(node):
            its, forbidden = above[node], (ast.Compare, ast.BinOp)
            if isinstance(its, ast.BinOp) and isinstance(its.op, ast.Sub) and is_reading(its.left):
                its, forbidden = above[its], (ast.Compare,)  # seconds that something took
            if isinstance(its, forbidden):
                yield f"line {node.lineno}: {ast.unparse(its)}"


def is_clock(node: ast.AST, aliases: Mapping[str, str]) -> TypeGuard[ast.Attribute]:
    return (
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and bool(CLOCKS.match(f"{aliases.get(node.value.id, node.value.id)}.{node.attr}"))
    )


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


def test_what_tests_of_several_folders_share_lies_in_support() -> None:
    """A bare name is found in the test's own folder alone; the rest is ``tests.support.NAME``."""
    files = sorted((ROOT / "tests").rglob("*.py"))
    helpers = {file.stem for file in files if not file.name.startswith(("test_", "conftest", "__"))}
    for file in files:
        beside = {other.stem for other in file.parent.glob("*.py")}
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            strange = (helpers - beside).intersection(names)
            assert not strange, f"{relative(file)}: write tests.support.{', '.join(strange)}"


@pytest.mark.parametrize(
    ("program", "one_way"),
    [("vcenter", "tests/support/missing.py"), ("etcd", "tests/support/etcd.py")],
)
def test_what_a_machine_may_lack_is_had_in_one_way(program: str, one_way: str) -> None:
    """That way skips where it is missing, and fails where ``make test`` was to install it."""
    for file in sorted((ROOT / "tests").rglob("*.py")):
        tree = ast.parse(file.read_text())
        its = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module == f"lab.{program}"
            for alias in node.names
        }
        made = [n.func for n in ast.walk(tree) if isinstance(n, ast.Call)]
        by_hand = [n.id for n in made if isinstance(n, ast.Name) and n.id in its]
        assert (by_hand == []) == (relative(file) != one_way), f"{relative(file)}: {by_hand}"


def test_no_two_test_files_of_one_run_have_the_same_name() -> None:
    """pytest imports them by their bare names; lab and machine tests have runs of their own."""
    runs: defaultdict[str, list[str]] = defaultdict(list)
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        folder = file.relative_to(ROOT / "tests").parts[0]
        runs[folder if folder in ("lab", "machine") else ""].append(file.name)
    for names in runs.values():
        assert [name for name, count in Counter(names).items() if count > 1] == []
