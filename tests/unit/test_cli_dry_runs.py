"""Whatever has --dry-run changes nothing with it, and tells programs what it would do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from moorline.cli.commands import main
from tests.support.libvirt_test_driver import Run, run

__all__ = ["run"]  # the fixture
A, C, HOOKS = "DIR/a.raw", "DIR/c.raw", "DIR/hooks"
"""A file that is attached, one that is not, a directory with our hook; DIR is the test's own."""
WORDS: dict[str, tuple[str, int]] = {
    "abort": ("DIR", 4),
    "adopt": ("--all", 0),
    "apply": ("-f DIR/declared.yaml --prune", 0),
    "attach": (f"test {C} --format raw --level connected", 0),
    "detach": (f"test {A}", 0),
    "extend": (f"test {A}", 4),
    "forget": (A, 0),
    "hook install": (f"--directory {HOOKS}/new", 0),
    "hook uninstall": (f"--directory {HOOKS}", 0),
    "launch": (f"web01 --boot {C} --format raw --template DIR/template.xml", 0),
    "release": ("test --all", 0),
    "relocate": (f"test {A} ds", 3),
    "remove": ("test --any", 0),
    "repair": ("--disks", 0),
    "set": (f"test {A} --iops 5", 0),
    "start": ("test", 0),
    "state rebind": ("", 0),
    "state rename": ("other", 0),
    "sweep": ("", 0),
}
"""What is typed, and the exit code: 0 where libvirt's test driver can do it."""
TEMPLATE = (
    "<domain type='test'><name>golden</name><memory unit='MiB'>64</memory>"
    "<vcpu>1</vcpu><os><type>hvm</type></os></domain>"
)


def _with_a_dry_run(group: click.Group, before: str = "") -> Iterator[str]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _with_a_dry_run(command, f"{before}{name} ")
        elif any("--dry-run" in parameter.opts for parameter in command.params):
            yield before + name


def test_the_table_has_them_all() -> None:
    """Those of a fleet are told apart, on a real etcd: tests/contract/test_fleet_commands.py."""
    there = {name for name in _with_a_dry_run(main) if not name.startswith("fleet ")}
    assert there == {*WORDS}


@pytest.fixture
def snapshot(run: Run, tmp_path: Path) -> Callable[[], dict[str, bytes]]:
    """All files of a host on which something is attached, and something is due."""
    for words in (
        f"attach test {A} --format raw --level connected --label web",
        "attach test DIR/b.raw --format raw --wait=false",
        f"hook install --directory {HOOKS}",
    ):
        done = run(*words.replace("DIR", str(tmp_path)).split())
        assert done.exit_code == 0, done.output
    (tmp_path / "template.xml").write_text(TEMPLATE)
    (tmp_path / "declared.yaml").write_text(
        "label: web\nattachments: [{guest: test, storage: c.raw, format: raw, level: connected}]"
    )

    def snapshot() -> dict[str, bytes]:
        files = (path for path in sorted(tmp_path.rglob("*")) if path.is_file())
        return {str(path): path.read_bytes() for path in files}

    return snapshot


@pytest.mark.parametrize("command", WORDS)
def test_it_changes_nothing(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    snapshot: Callable[[], dict[str, bytes]],
    command: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    words, code = WORDS[command]
    before = snapshot()
    line = [*command.split(), *words.replace("DIR", str(tmp_path)).split(), "--dry-run"]
    text = run(*line)
    assert (text.exit_code, snapshot() == before) == (code, True), text.output
    data = run(*line, "-o", "json")
    assert (data.exit_code, snapshot() == before) == (code, True), data.output
    json.loads(data.stderr if code else data.stdout)
    assert text.stdout.strip() or code
