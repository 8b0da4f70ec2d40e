"""The back end of docs/add-a-backend.md is a back end: one file, one line, and the contract."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from documented import install

from moorline import installed
from moorline.host.linux import Linux
from moorline.testing.contracts.backend import BackendContract, BackendRig


class ShelfRig(BackendRig):
    given = True

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for name in ("a", "b"):
            (directory / name).write_bytes(bytes(4096))
        (directory / "dir").mkdir()
        self.host = Linux(look_deadline=5)
        values = {"shelf_directory": str(directory), "state_dir": "/"}
        self.backend = installed.InstalledBackends(self.host, values)["shelf"]
        self.good = self.named("a")
        self.other = self.named("b")
        self.missing = self.named("none")
        self.unfit = {"a directory": self.named("dir")}
        self.hostile = {repr(name): self.named(name) for name in ("", "/a", "../a", "a//b", "-o")}

    def named(self, name: str) -> dict[str, object]:
        return {"driver_volume_type": "shelf", "data": {"name": name, "format": "raw"}}

    def world(self) -> object:
        return {path.name: path.lstat().st_mtime_ns for path in self.directory.iterdir()}


class TestDocumented(BackendContract):
    @pytest.fixture
    def rig(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BackendRig]:
        install(package := tmp_path / "package", "add-a-backend.md", "class Shelf:")
        monkeypatch.syspath_prepend(package)
        (tmp_path / "shelf").mkdir()
        rig = ShelfRig(tmp_path / "shelf")
        yield rig
        rig.host.close()
