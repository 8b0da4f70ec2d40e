"""The hook of libvirt's: written, run, taken away; what is broken here holds no other guest up."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from moorline import wiring
from moorline.cli.commands import main
from moorline.fleet.host_memory import Mark, Marks
from moorline.stores.sqlite import SqliteStore

UUID = "7b1d2f6e-3a0c-4b5e-9d8f-0a1b2c3d4e5f"
NOWHERE = "test:///no/such/file.xml"
"""A hypervisor that is not there: the hook must not ask it."""
OURS = "<disk><alias name='ua-volume'/></disk>"
THEIRS = "<disk><alias name='virtio-disk0'/></disk>"


def domain(disk: str = OURS, uuid: str = f"<uuid>{UUID}</uuid>") -> str:
    return f"<domain><name>web01</name>{uuid}<devices>{disk}</devices></domain>"


@pytest.fixture
def runner(tmp_path: Path) -> CliRunner:

    state = {"MOORLINE_STATE_DIR": str(tmp_path / "state")}
    return CliRunner(env={**state, "MOORLINE_HYPERVISOR": NOWHERE})


@pytest.fixture
def hooks(tmp_path: Path) -> list[str]:
    return ["--directory", str(tmp_path / "qemu.d")]


@pytest.fixture
def script(runner: CliRunner, hooks: list[str]) -> Path:
    assert runner.invoke(main, ["hook", "install", *hooks]).exit_code == 0
    return Path(hooks[1]) / "moorline"


def call(script: Path, *words: str, xml: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(script), "web01", *words, "-"],
        input=xml,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_it_is_written_again_and_taken_away(
    runner: CliRunner, hooks: list[str], script: Path
) -> None:
    assert os.access(script, os.X_OK)
    assert runner.invoke(main, ["hook", "install", *hooks]).exit_code == 0
    assert [path.name for path in script.parent.iterdir()] == ["moorline"]
    for _ in range(2):
        assert runner.invoke(main, ["hook", "uninstall", *hooks]).exit_code == 0
    assert not script.exists()


def test_a_dry_run_says_what_it_would_write_and_writes_nothing(
    runner: CliRunner, hooks: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "qemu.d/moorline"
    told = runner.invoke(main, ["hook", "install", *hooks, "--dry-run"])
    assert told.exit_code == 0
    assert not path.parent.exists()
    data = json.loads(runner.invoke(main, ["hook", "install", *hooks, "-o", "json"]).stdout)
    assert data == {"path": str(path), "script": path.read_text(), "dry_run": False}
    assert told.stdout == f"would write {path}:\n{path.read_text()}"
    told = runner.invoke(main, ["hook", "uninstall", *hooks, "--dry-run"])
    assert (told.exit_code, told.stdout) == (0, f"would remove {path}\n")
    assert path.exists()


@pytest.mark.parametrize("verb", ["install", "uninstall"])
def test_a_hook_of_somebody_else_is_left_alone(
    runner: CliRunner, hooks: list[str], verb: str
) -> None:
    other = Path(hooks[1]) / "moorline"
    other.parent.mkdir()
    other.write_text("#!/bin/sh\n")
    assert runner.invoke(main, ["hook", verb, *hooks]).exit_code == 7
    assert other.read_text() == "#!/bin/sh\n"


def test_it_keeps_the_options_that_it_was_given(
    runner: CliRunner, hooks: list[str], tmp_path: Path
) -> None:
    options = ["--state-dir", str(tmp_path / "a state"), "--config-file", str(tmp_path / "x.conf")]
    (tmp_path / "x.conf").touch()
    assert runner.invoke(main, ["hook", "install", *hooks, *options]).exit_code == 0
    text = (Path(hooks[1]) / "moorline").read_text()
    assert f"--state-dir '{tmp_path}/a state' --config-file {tmp_path}/x.conf" in text


@pytest.mark.parametrize("words", [("release", "end"), ("started", "begin"), ("prepare", "end")])
def test_it_does_nothing_but_before_a_start(script: Path, words: tuple[str, str]) -> None:
    assert call(script, *words, xml="no XML").returncode == 0
    assert call(script, "prepare", "begin", xml="no XML").returncode == 3


def test_without_moorline_it_holds_no_guest_up(script: Path) -> None:
    script.write_text(script.read_text().replace("/bin/python", "/bin/gone"))
    assert call(script, "prepare", "begin", xml=domain()).returncode == 0


@pytest.mark.parametrize("disk", [OURS, THEIRS])
def test_a_guest_without_attachments_starts(runner: CliRunner, disk: str) -> None:
    assert runner.invoke(main, ["hook", "run"], input=domain(disk)).exit_code == 0


@pytest.mark.parametrize(("disk", "code"), [(OURS, 3), (THEIRS, 0)])
def test_a_broken_configuration_holds_up_only_who_has_our_disks(
    runner: CliRunner, tmp_path: Path, disk: str, code: int
) -> None:
    broken = tmp_path / "broken.conf"
    broken.write_text("[libvirt\n")
    words = ["hook", "run", "--config-file", str(broken)]
    done = runner.invoke(main, words, input=domain(disk))
    assert done.exit_code == code, done.output


@pytest.mark.parametrize("xml", ["", "<domain", domain(uuid="")])
def test_what_is_no_guest_is_refused(runner: CliRunner, xml: str) -> None:
    assert runner.invoke(main, ["hook", "run"], input=xml).exit_code == 3


@pytest.mark.parametrize("words", [("prepare", "begin"), ("migrate", "begin")])
def test_on_a_host_of_a_fleet_without_an_agent_only_strangers_start(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, str]
) -> None:
    state = tmp_path / "state"
    monkeypatch.setenv("MOORLINE_STATE_DIR", str(state))
    monkeypatch.setenv("MOORLINE_HYPERVISOR", NOWHERE)
    wiring.open_host(wiring.settings(state_dir=state, hypervisor=NOWHERE)).close()
    store = SqliteStore(state / "moorline.db")
    marks = Marks(store, socket.gethostname())
    marks.accept("an epoch")
    assert call(script, *words, xml=domain(THEIRS)).returncode == 0, "no fleet spoke of it"
    assert call(script, *words, xml=domain(OURS)).returncode == 11
    marks.follow(Mark("here", 1), UUID)
    store.close()
    told = call(script, *words, xml=domain(THEIRS))
    assert told.returncode == 11
    assert "no agent that follows it runs here" in told.stderr
