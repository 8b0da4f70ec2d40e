"""The hypervisor of docs/add-a-hypervisor.md: a file, a line, the contract, and all commands."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from documented import install

from moorline import installed
from moorline.host.linux import Linux
from moorline.model import GuestId, ImageFile, PathSource
from moorline.ports import OpenContext
from moorline.ports.hypervisor import any_identity
from moorline.testing.contracts.hypervisor import HypervisorContract, HypervisorRig
from moorline.testing.toys import MemoryStore

PAGE = "add-a-hypervisor.md"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    install(package := tmp_path / "package", PAGE, "class Yard:")
    return package


class YardRig(HypervisorRig):
    def __init__(self, base: Path) -> None:
        self.yard, self.sources = base / "yard", base / "sources"
        for directory in (self.yard, self.sources):
            directory.mkdir()
        self.running, self.stopped = self.new_guest("web01", True), self.new_guest("web02", False)

    def new_guest(self, name: str, running: bool) -> GuestId:
        id = GuestId(str(uuid.uuid4()))
        self.write(id, {"name": name, "running": running, "disks": {}})
        return id

    def read(self, id: GuestId) -> Any:
        return json.loads((self.yard / f"{id}.json").read_text())

    def write(self, id: GuestId, definition: object) -> None:
        (self.yard / f"{id}.json").write_text(json.dumps(definition))

    def running_guest(self) -> GuestId:
        return self.running

    def stopped_guest(self) -> GuestId:
        return self.stopped

    def new_path(self) -> Path:
        path = self.sources / f"{len(list(self.sources.iterdir()))}.raw"
        path.write_bytes(bytes(4096))
        return path

    def new_source(self) -> PathSource:
        return ImageFile(self.new_path(), "raw")

    def foreign_disk(self, guest: GuestId) -> str:
        definition = self.read(guest)
        definition["disks"]["disk0"] = {"path": str(self.sources / "foreign.raw")}
        self.write(guest, definition)
        return str(self.sources / "foreign.raw")


class TestDocumented(HypervisorContract):
    @pytest.fixture
    def rig(self, tmp_path: Path, package: Path, monkeypatch: pytest.MonkeyPatch) -> HypervisorRig:
        monkeypatch.syspath_prepend(package)
        monkeypatch.delitem(sys.modules, "yard_hypervisor", raising=False)
        importlib.invalidate_caches()
        rig = YardRig(tmp_path)
        values = {"yard_most_disks": "8"}
        context = OpenContext(values, Linux(), MemoryStore(), "host", True, any_identity)
        uri = f"yard://{rig.yard}"
        rig.hypervisor = installed.driver(uri).open(uri, context)
        return rig


# --- the commands, of a new process, which is told nothing but the URI ---

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def yard(tmp_path: Path) -> YardRig:
    return YardRig(tmp_path)


@pytest.fixture
def moorline(tmp_path: Path, package: Path, yard: YardRig) -> Run:
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(package),
        "MOORLINE_STATE_DIR": str(tmp_path / "state"),
        "MOORLINE_HYPERVISOR": f"yard://{yard.yard}",
    }

    def run(*words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-m", "moorline.cli", *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd="/")
        assert done.returncode == code, done.stderr
        return done

    return run


def test_its_guests_get_disks_and_lose_them(moorline: Run, yard: YardRig) -> None:
    path = str(yard.new_path())
    told = moorline("attach", "web01", path, "--format", "raw").stdout
    assert " is attached to web01 as disk0\n" in told
    (view,) = json.loads(moorline("list", "--output", "json").stdout)
    assert (view["guest"], view["guest_id"]) == ("web01", yard.running)
    assert (view["wanted"], view["seen"], view["next"]) == ("attached", "attached", "nothing")
    disk = {"path": path, "mark": view["volume"]}
    assert yard.read(yard.running)["disks"] == {"disk0": disk}
    moorline("show", "disk0", "--guest", "web01")
    assert moorline("doctor").stdout.startswith("nothing found")
    moorline("detach", "web01", "disk0")
    assert json.loads(moorline("list", "--output", "json").stdout) == []
    assert yard.read(yard.running)["disks"] == {}


def test_what_is_pulled_behind_its_back_is_plugged_again(moorline: Run, yard: YardRig) -> None:
    path = str(yard.new_path())
    moorline("attach", "web02", path, "--format", "raw")
    before = yard.read(yard.stopped)
    yard.write(yard.stopped, {**before, "disks": {}})
    assert json.loads(moorline("list", "--output", "json").stdout)[0]["seen"] == "connected"
    moorline("sweep")
    assert yard.read(yard.stopped) == before


def test_two_guests_do_not_get_one_file(moorline: Run, yard: YardRig) -> None:
    path = str(yard.new_path())
    definition = yard.read(yard.stopped)
    definition["disks"]["disk0"] = {"path": path}
    yard.write(yard.stopped, definition)
    moorline("attach", "web01", path, "--format", "raw", code=3)
    assert yard.read(yard.running)["disks"] == {}


def test_a_guest_that_cannot_be_read_is_found_by_the_doctor(moorline: Run, yard: YardRig) -> None:
    moorline("attach", "web01", str(yard.new_path()), "--format", "raw")
    (yard.yard / "broken.json").write_text("{")
    assert "its file is damaged" in moorline("doctor", code=10).stdout


def test_a_yard_that_cannot_be_read_has_not_no_guests(moorline: Run, yard: YardRig) -> None:
    yard.yard.rename(yard.yard.parent / "elsewhere")
    moorline("attach", "web01", str(yard.new_path()), "--format", "raw", code=11)


def test_its_options_are_told_and_kept(moorline: Run, yard: YardRig, tmp_path: Path) -> None:
    (conf := tmp_path / "moorline.conf").write_text("[yard]\nyard_most_disks = 0\n")
    path = str(yard.new_path())
    words = ["attach", "web01", path, "--format", "raw", "--config-file", str(conf)]
    assert "no room" in moorline(*words, code=3).stderr
    assert "yard_most_disks" in moorline("config", "show").stdout


@pytest.mark.parametrize("words", [["extend", "web01", "x"], ["launch", "web09"]], ids=" ".join)
def test_what_it_cannot_do_is_refused(moorline: Run, words: list[str]) -> None:
    done = moorline(*words, code=3)
    assert "Traceback" not in done.stderr
