"""Releases that the agent was not told yet, kept on disk so that they outlive nova-compute.

Each is an empty file whose name says all: such a file is never written in part.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote


class Use(NamedTuple):
    """An instance's use of a volume, both by their ids."""

    instance: str
    volume: str


class Pending:
    """A durable set of uses, in a directory of its own. All methods may raise OSError."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def add(self, use: Use) -> None:
        """Remember *use*. It is on disk when this returns."""
        _make(self._directory)
        file = os.open(self._file(use), os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            os.fsync(file)
        finally:
            os.close(file)
        _sync(self._directory)

    def discard(self, use: Use) -> None:
        """Forget *use*; one that is not there is forgotten already."""
        try:
            self._file(use).unlink()
        except FileNotFoundError:
            return
        _sync(self._directory)

    def all(self) -> set[Use]:
        """All uses that are remembered."""
        try:
            names = [entry.name for entry in self._directory.iterdir()]
        except FileNotFoundError:
            return set()
        parts = (name.partition("_") for name in names)
        return {Use(instance, unquote(volume)) for instance, between, volume in parts if between}

    def _file(self, use: Use) -> Path:
        return self._directory / f"{use.instance}_{quote(use.volume, safe='')}"


def _make(directory: Path) -> None:
    """Make *directory* and its parents, each on disk before what is beneath it."""
    if directory.is_dir():
        return
    _make(directory.parent)
    directory.mkdir(mode=0o700, exist_ok=True)
    _sync(directory.parent)


def _sync(directory: Path) -> None:
    entries = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(entries)
    finally:
        os.close(entries)
