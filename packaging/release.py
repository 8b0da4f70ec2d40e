"""Make a release's version and changelog of the fragments: python packaging/release.py [VERSION].

Without VERSION, the fragments say it: something added or changed is a new minor version, and
what is only fixed is a new patch. Writes both pyproject.toml, the Ansible collection's galaxy.yml
and CHANGELOG.md, and removes the fragments; it commits nothing.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECTS = ("pyproject.toml", "nova/pyproject.toml", "packaging/ansible/galaxy.yml")
VERSION = re.compile(r'^(version(?: =|:)) "(\d+)\.(\d+)\.(\d+)"$', re.MULTILINE)


def next_version(version: tuple[int, int, int], kinds: Iterable[str]) -> str:
    """The version after *version*, with fragments of such *kinds*. Raises ValueError: of none."""
    found = set(kinds)
    if not found or found - {"added", "changed", "fixed"}:
        raise ValueError(f"no fragment, or of an unknown kind: {sorted(found)}")
    major, minor, patch = version
    return f"{major}.{minor}.{patch + 1}" if found == {"fixed"} else f"{major}.{minor + 1}.0"


def current(root: Path) -> tuple[int, int, int]:
    """The version of the project at *root*. Raises ValueError: its packages have not the same."""
    (one, *more) = {VERSION.findall((root / project).read_text())[0][1:] for project in PROJECTS}
    if more:
        raise ValueError(f"{', '.join(PROJECTS)} have different versions")
    major, minor, patch = map(int, one)
    return major, minor, patch


def release(root: Path, version: str | None) -> str:
    """Release the project at *root*; return the version. Raises ValueError: nothing was changed."""
    before = current(root)
    fragments = [file.name for file in (root / "changelog").glob("*.*.md")]
    version = version or next_version(before, (name.split(".")[-2] for name in fragments))
    if not VERSION.match(f'version = "{version}"'):
        raise ValueError(f"{version} is not MAJOR.MINOR.PATCH")
    if tuple(map(int, version.split("."))) <= before:
        raise ValueError(f"{version} is not newer than {'.'.join(map(str, before))}")
    towncrier = [sys.executable, "-m", "towncrier", "build", "--yes", "--version", version]
    subprocess.run(towncrier, cwd=root, check=True)
    number(root, version)
    return version


def number(root: Path, version: str) -> None:
    """Write *version* into all that is released of the project at *root*."""
    for project in PROJECTS:
        file = root / project
        file.write_text(VERSION.sub(rf'\1 "{version}"', file.read_text(), count=1))


if __name__ == "__main__":
    try:
        print(release(ROOT, sys.argv[1] if len(sys.argv) > 1 else None))
    except ValueError as e:
        sys.exit(f"release: {e}")
