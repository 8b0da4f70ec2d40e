"""The command of docs/add-a-command.md is one file and one line: added to a copy as it says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from documented import install

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/add-a-command.md").read_text()
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def block(kind: str) -> str:
    return PAGE.partition(f"```{kind}\n")[2].partition("```")[0]


def lines() -> dict[str, str]:
    """The one line that each file gets."""
    return dict(re.findall(r"--- (\S+)\n\+(.*)\n", block("diff")))


@pytest.fixture
def moorline(tmp_path: Path) -> Run:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("*.egg-info"))
    (name,) = re.findall(r"`src/(moorline/cli/\w+\.py)`:", PAGE)
    (tmp_path / "src" / name).write_text(block("python"))
    table = tmp_path / "src/moorline/cli/commands.py"
    head, begin, rest = table.read_text().partition("MappingProxyType(\n    {\n")
    assert begin
    table.write_text(f"{head}{begin}{lines()['src/moorline/cli/commands.py']}\n{rest}")
    install(package := tmp_path / "package", "add-a-hypervisor.md", "class Yard:")
    (yard := tmp_path / "yard").mkdir()
    guest = {"name": "web01", "running": True, "disks": {}}
    (yard / "7b1d2f6e.json").write_text(json.dumps(guest))
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{tmp_path / 'src'}:{package}",
        "MOORLINE_STATE_DIR": str(tmp_path / "state"),
        "MOORLINE_HYPERVISOR": f"yard://{yard}",
    }

    def run(*words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-m", "moorline.cli", *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd="/")
        assert done.returncode == code, done.stderr
        return done

    return run


def test_it_is_a_command(moorline: Run, tmp_path: Path) -> None:
    (disk := tmp_path / "a.raw").write_bytes(bytes(4096))
    words = ["attach", "web01", str(disk), "--format", "raw", "--output", "json"]
    volume = json.loads(moorline(*words).stdout)["view"]["volume"]
    assert moorline("path", volume[:8]).stdout == f"{disk}\n"
    assert json.loads(moorline("path", volume, "--output", "json").stdout) == {"path": str(disk)}
    moorline("path", "00000000-0000-4000-8000-000000000000", code=4)
    moorline("path", code=2)


def test_its_help_is_that_of_its_line(moorline: Run) -> None:
    (told,) = re.findall(r'"([^"]+)"\),?$', lines()["src/moorline/cli/commands.py"])
    row = re.escape(told.removesuffix("."))
    assert re.search(rf"^  path +{row}$", moorline("--help").stdout, re.M)
    assert told in moorline("path", "--help").stdout


def test_its_row_is_one_of_the_table_of_commands() -> None:
    reference = (ROOT / "docs/reference.md").read_text()
    table = reference.partition("\n| command | does")[2].partition("\n\n")[0]
    assert lines()["docs/reference.md"].count("|") == table.splitlines()[1].count("|")
