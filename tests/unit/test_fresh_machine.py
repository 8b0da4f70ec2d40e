"""A fresh machine: what must be there first is said, and tests leave nothing that cannot go."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import immutable

ROOT = Path(__file__).parents[2]
LEAVES = """
import subprocess
def test_leaves(tmp_path_factory):
    at = tmp_path_factory.mktemp("left") / "mount"
    at.mkdir()
    subprocess.run(["chattr", "+i", at], check=True)
"""


def packages() -> set[str]:
    """What the Makefile installs for `make demo` and `make test`."""
    listed = re.search(r"^PACKAGES := ((?:.*\\\n)*.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert listed is not None
    return set(listed[1].replace("\\\n", " ").split())


def test_the_readme_says_what_must_be_there_first() -> None:
    readme = (ROOT / "README.md").read_text()
    assert "Debian 12 or 13" in readme
    assert "`apt-get install git make` is all that must be there first" in readme
    after = readme.partition("## Install it")[2]
    for package in ("libvirt-daemon-system", "libvirt-clients"):  # its daemon, and virsh
        assert package in packages()
        assert f"`{package}`" in after
    (line,) = re.findall(r"^# apt-get install (.*)$", after, re.M)
    assert set(line.split()) <= packages()


@pytest.fixture
def mount_point(tmp_path: Path) -> Path:
    at = tmp_path / "deep" / "mount"
    at.mkdir(parents=True)
    at.chmod(0)
    done = subprocess.run(["chattr", "+i", at], check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"needs root, and a file system with such flags: {done.stderr.strip()}")
    return at


def test_what_is_immutable_is_found_and_let_go(mount_point: Path, tmp_path: Path) -> None:
    assert immutable.left(tmp_path) == [str(mount_point)]
    immutable.let_go(tmp_path)
    assert immutable.left(tmp_path) == []
    mount_point.rmdir()


def test_a_run_that_leaves_what_nobody_can_remove_fails(mount_point: Path, tmp_path: Path) -> None:
    (tmp_path / "test_leaves.py").write_text(LEAVES)
    base = tmp_path / "base"
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", f"--basetemp={base}"]
    done = subprocess.run(
        [*command, f"--rootdir={tmp_path}", str(tmp_path / "test_leaves.py")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    (left,) = immutable.left(base)
    subprocess.run(["chattr", "-i", left], check=True)
    assert "1 passed" in done.stdout
    assert f"left behind, immutable:\n{left}\n" in done.stdout
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
