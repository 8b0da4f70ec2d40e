"""Databases of a cloud in which nothing is yet, kept from run to run: they take minutes to make."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import tempfile
from pathlib import Path

from lab.images import CHECKOUT, cache

_PARTS = ("cinder", "control")
_MADE_BY = ("cinder/real.py", "cloud/control.py")
_KEYS = ("fernet", "credential")


def restore(directory: Path, venv: Path) -> bool:
    """Put what was kept into the cloud's *directory*; return whether there was anything."""
    kept = _place(venv)
    if not kept.exists():
        return False
    shutil.copytree(kept, directory, dirs_exist_ok=True)
    return True


def save(directory: Path, venv: Path) -> None:
    """Keep what is in the cloud's *directory*. Its services may run."""
    kept = _place(venv)
    with tempfile.TemporaryDirectory(dir=kept.parent, prefix="cloud-new-") as new:
        for part in _PARTS:
            (Path(new) / part).mkdir()
            for file in (directory / part).glob("*.db"):
                _copy(file, Path(new) / part / file.name)
        for key in _KEYS:
            shutil.copytree(directory / "cinder" / key, Path(new) / "cinder" / key)
        Path(new).rename(kept)
        Path(new).mkdir()  # it is removed


def _copy(file: Path, to: Path) -> None:
    source, target = sqlite3.connect(file), sqlite3.connect(to)
    try:
        source.backup(target)
    finally:
        source.close()
        target.close()


def _place(venv: Path) -> Path:
    """Named after all that the content depends on."""
    content = [(CHECKOUT / "lab" / file).read_text() for file in _MADE_BY]
    content += sorted(path.name for path in venv.glob("lib/*/site-packages/*.dist-info"))
    return cache() / f"cloud-{hashlib.sha256(repr(content).encode()).hexdigest()[:8]}"
