"""Each way in which `moorline sweep` ends, by its exit code and what it lists."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from moorline.cli.commands import main

GUEST = """<node><domain type='test'><name>test</name>
<uuid>6695eb01-f6a4-8304-79aa-97f2502e193f</uuid><memory>8192</memory><vcpu>1</vcpu>
<os><type>hvm</type></os></domain></node>"""
"""libvirt's test driver can plug no disk: what is to be attached stays connected."""
Run = Callable[..., Result]


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A hypervisor that can be away, and come back."""
    path = tmp_path / "node.xml"
    path.write_text(GUEST)
    return path


@pytest.fixture
def run(tmp_path: Path, node: Path) -> Run:
    state = tmp_path / "state"
    state.mkdir()
    runner = CliRunner(
        env={"MOORLINE_STATE_DIR": str(state), "MOORLINE_HYPERVISOR": f"test://{node}"}
    )
    return lambda *words: runner.invoke(main, [*map(str, words)])


@pytest.fixture
def record(run: Run, tmp_path: Path) -> Callable[..., Path]:
    """Record that a file be a volume of the guest, and return the file."""

    def record(name: str, level: str = "attached", *more: str) -> Path:
        file = tmp_path / f"{name}.raw"
        file.write_bytes(bytes(1 << 20))
        words = ("--format", "raw", "--level", level, *more)
        assert run("attach", "test", file, *words).exit_code == 0
        return file

    return record


def seen(done: Result) -> list[str]:
    """What was found of each attachment that is listed."""
    return [view["seen"] for view in json.loads(done.stdout)]


def wanted(run: Run) -> list[tuple[Any, Any]]:
    listed = json.loads(run("list", "-o", "json").stdout)
    return [(view["volume"], view["wanted"]) for view in listed]


def test_nothing_is_due(run: Run, record: Callable[..., Path]) -> None:
    for _ in range(2):
        done = run("sweep")
        assert (done.exit_code, done.stdout, done.stderr) == (0, "", "")
        record("a", "connected")
    assert run("sweep", "--dry-run").stdout == "nothing to do\n"


def test_what_is_due_is_done(run: Run, record: Callable[..., Path]) -> None:
    """In both directions."""
    file = record("a", "connected", "--wait=false")
    assert run("sweep", "-o", "json").exit_code == 0
    assert seen(run("list", "-o", "json")) == ["connected"]
    assert run("detach", "test", file, "--wait=false").exit_code == 0
    assert len(wanted(run)) == 1
    assert run("sweep").exit_code == 0
    assert wanted(run) == []


def test_one_is_left_and_the_others_are_done(run: Run, record: Callable[..., Path]) -> None:
    record("a", "connected", "--wait=false")
    left = record("b", "attached", "--wait=false")
    done = run("sweep")
    assert (done.exit_code, "1 attachment is not as wanted yet" in done.stderr) == (5, True)
    assert (str(left) in done.stdout, "a.raw" in done.stdout) == (True, False)
    assert sorted(seen(run("list", "-o", "json"))) == ["connected", "connected"]
    again = run("sweep", "-o", "json")
    assert (again.exit_code, seen(again), json.loads(again.stderr)["code"]) == (5, ["connected"], 5)


def test_several_are_left(run: Run, record: Callable[..., Path]) -> None:
    """Of one the file is away, too."""
    record("a", "attached", "--wait=false")
    record("b", "attached", "--wait=false").unlink()
    done = run("sweep")
    assert (done.exit_code, "2 attachments are not as wanted yet" in done.stderr) == (5, True)


def test_what_would_be_done_is_told_with_0_and_nothing_is_changed(
    run: Run, record: Callable[..., Path]
) -> None:
    record("a", "attached", "--wait=false")
    before = run("list", "-o", "json").stdout
    told = run("sweep", "--dry-run")
    assert (told.exit_code, told.stdout.startswith("would attach: volume ")) == (0, True)
    assert run("list", "-o", "json").stdout == before


def test_the_hypervisor_is_away(run: Run, record: Callable[..., Path], node: Path) -> None:
    """What is unknown is neither as wanted nor gone."""
    record("a", "connected")
    record("b", "attached", "--wait=false")
    before = wanted(run)
    node.rename(node.with_name("away"))
    done = run("sweep", "-o", "json")
    assert (done.exit_code, seen(done)) == (5, ["unknown"])
    told = run("sweep", "--dry-run")
    assert (told.exit_code, told.stdout.count("would look again")) == (0, 2)
    assert wanted(run) == before


def test_what_is_on_its_way_out_stays_while_the_hypervisor_is_away(
    run: Run, record: Callable[..., Path], node: Path
) -> None:
    file = record("a", "attached", "--wait=false")
    assert run("detach", "test", file, "--wait=false").exit_code == 0
    node.rename(node.with_name("away"))
    done = run("sweep", "-o", "json")
    assert (done.exit_code, seen(done), len(wanted(run))) == (5, ["unknown"], 1)
    node.with_name("away").rename(node)
    assert (run("sweep").exit_code, wanted(run)) == (0, [])


def test_the_state_is_of_another_hypervisor(run: Run, record: Callable[..., Path]) -> None:
    record("a", "attached", "--wait=false")
    before = wanted(run)
    for more in ((), ("--dry-run",)):
        done = run("sweep", "--hypervisor", "qemu:///system?socket=/none", *more)
        assert (done.exit_code, done.stdout) == (3, "")
    assert wanted(run) == before


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_the_records_cannot_be_read(
    run: Run, record: Callable[..., Path], tmp_path: Path, more: tuple[str, ...]
) -> None:
    """Nothing is taken for not wanted."""
    record("a", "connected")
    file, rubbish = tmp_path / "state" / "moorline.db", b"no database" * 1000
    whole = file.read_bytes()
    file.write_bytes(rubbish)
    try:
        done = run("sweep", *more)
        assert (done.exit_code, done.stdout) == (11, ""), done.output
        assert file.read_bytes() == rubbish
    finally:
        file.write_bytes(whole)  # other states of this host ask this one what it launched


@pytest.mark.parametrize("words", [("a",), ("--nonsense",), ("--output", "nonsense")])
def test_what_is_typed_is_mistaken(run: Run, words: tuple[str, ...]) -> None:
    assert run("sweep", *words).exit_code == 2
