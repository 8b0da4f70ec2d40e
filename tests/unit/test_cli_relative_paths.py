"""Relative paths mean the current directory in each command: an agent's is another one."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from moorline.cli.commands import main
from moorline.cli.name_completion import MountPoint, ShareName, VolumeName


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    (tmp_path / "disks/deep").mkdir(parents=True)
    (tmp_path / "disks/a.raw").write_bytes(bytes(1 << 20))
    monkeypatch.chdir(tmp_path / "disks/deep")
    return CliRunner(
        env={"MOORLINE_STATE_DIR": str(tmp_path / "s"), "MOORLINE_HYPERVISOR": "test:///default"}
    )


@pytest.mark.parametrize(
    ("kind", "typed", "meant"),
    [
        (MountPoint(), "mnt/x/", "{here}/mnt/x"),
        (MountPoint(), "/mnt/x/", "/mnt/x"),
        (MountPoint(), "../x", "{above}/x"),
        (ShareName(), ".", "{here}"),
        (ShareName(), "../", "{above}"),
        (ShareName(), "nfs://nas/a", "nfs://nas/a"),
        (VolumeName(), "./a.raw", "{here}/a.raw"),
        (VolumeName(), "3f2a", "3f2a"),
    ],
)
def test_what_a_typed_path_means(
    runner: CliRunner, kind: click.ParamType, typed: str, meant: str
) -> None:
    here = Path.cwd()
    assert kind.convert(typed, None, None) == meant.format(here=here, above=here.parent)


def test_each_verb_finds_what_was_attached_by_a_relative_path(runner: CliRunner) -> None:
    def run(*words: str) -> str:
        done = runner.invoke(main, [*words, "--output", "json"])
        assert done.exit_code == 0, done.output
        return done.stdout

    attached = run("attach", "test", "../a.raw", "--format", "raw", "--level", "connected")
    id = json.loads(attached)["view"]["volume"]
    for words in (
        ("show", "../a.raw"),
        ("explain", "./../a.raw"),
        ("list", "--share", ".."),
        ("detach", "test", "../a.raw", "--dry-run"),
        ("release", "test", "../a.raw", "--dry-run"),
        ("wait", "../a.raw", "--for", "connected"),
    ):
        assert id in run(*words), words
    told = runner.invoke(main, ["abort", "../a"])
    assert (told.exit_code, str(Path.cwd().parent / "a") in told.stderr) == (4, True)


@pytest.mark.parametrize("typed", ["quobyte:/reg1/vm-disks/a.raw", "nas:/export/a.raw"])
def test_a_url_that_is_none_is_told_and_no_path(runner: CliRunner, typed: str) -> None:
    done = runner.invoke(main, ["attach", "test", typed, "--format", "raw"])
    begins = typed.partition(":")[0]
    assert done.exit_code == 3
    assert f"what begins with {begins}:/ is no URL" in done.stderr
    assert f"nfs://{begins}/" in done.stderr
    Path(f"{begins}:").mkdir()
    Path(f"{begins}:/a.raw").write_bytes(bytes(1 << 20))
    words = ["attach", "test", f"./{begins}:/a.raw", "--format", "raw", "--level", "connected"]
    assert runner.invoke(main, words).exit_code == 0


@pytest.mark.parametrize("typed", ["vsphere://u:hunter2@vc/a", "/srv/hunter2", "./hunter2"])
@pytest.mark.parametrize("words", ["attach", "detach", "list", "disks", "remove"])
def test_a_volume_in_place_of_a_guest_is_told_and_not_repeated(
    runner: CliRunner, words: str, typed: str
) -> None:
    more = ["web01"] if words in ("attach", "detach") else []
    done = runner.invoke(main, [words, typed, *more, "-o", "json"])
    assert (done.exit_code, json.loads(done.stderr)["error"]) == (4, "notfound")
    assert "hunter2" not in done.output
