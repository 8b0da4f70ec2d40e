"""Runs real ansible-core, of an environment of its own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COLLECTION = ROOT / "packaging/ansible"
ANSIBLE = Path(os.environ.get("MOORLINE_ANSIBLE", ROOT / ".venv-ansible")) / "bin"


def installed(directory: Path) -> Path:
    """Have `ansible-galaxy` build the collection and install it into *directory*."""
    if not ANSIBLE.is_dir():
        pytest.skip("there is no ansible-core: run `make test-ansible`")
    ansible(directory, "galaxy", "collection", "build", COLLECTION, "--output-path", directory)
    (built,) = directory.glob("*.tar.gz")
    ansible(directory, "galaxy", "collection", "install", "-p", directory, built)
    return directory


def ansible(
    home: Path, tool: str, *words: str | Path, root: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one of Ansible's commands with the collections in *home*; below *root* (None: here)."""
    given = {
        # The lab's own, where the stand-ins are.
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin" if root else os.environ["PATH"],
        "HOME": str(home),
        "LC_ALL": "C.UTF-8",
        "ANSIBLE_COLLECTIONS_PATH": str(home),
        # Nothing of ours is in it: the module needs the standard library alone.
        "ANSIBLE_PYTHON_INTERPRETER": "/usr/bin/python3",
    }
    elsewhere = ["chroot", str(root)] if root else []
    ran = subprocess.run(
        [*elsewhere, ANSIBLE / f"ansible-{tool}", *words],
        env=given,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
    return ran
