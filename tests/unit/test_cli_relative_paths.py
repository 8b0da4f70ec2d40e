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
