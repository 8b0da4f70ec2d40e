"""Looking makes nothing: no directory, no key, no database."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from moorline import wiring
from moorline.cli.commands import main
from moorline.errors import Unavailable
from moorline.ports import Put
from moorline.stores.codec import Codec
from moorline.stores.sqlite import SqliteStore

LOOKS = [
    ["list"],
    ["show", "v1"],
    ["explain", "v1"],
    ["doctor"],
    ["events"],
    ["adopt", "test"],
    ["state", "show"],
    ["repair", "--dry-run"],
    ["detach", "test", "v1", "--dry-run"],
    ["forget", "v1", "--dry-run"],
    ["release", "test", "v1", "--dry-run"],
    ["extend", "test", "v1", "--dry-run"],
    ["abort", "/mnt/x", "--dry-run"],
    ["state", "rename", "h2", "--dry-run"],
    ["state", "rebind", "--dry-run"],
]
CHANGES = [
    ["sweep"],
    ["detach", "test", "v1"],
    ["forget", "v1"],
    ["release", "test", "v1"],
    ["extend", "test", "v1"],
    ["repair"],
    ["abort", "/mnt/x"],
    ["start", "test"],
    ["remove", "test"],
    ["state", "rename", "h2"],
]


def run(state: Path, *words: str) -> tuple[int, str]:
    given = ["--state-dir", str(state), "--hypervisor", "test:///default"]
    done = CliRunner().invoke(main, [*words, *given])
    return done.exit_code, done.output


@pytest.mark.parametrize("words", LOOKS + CHANGES, ids=" ".join)
def test_a_state_directory_that_was_mistyped_is_told_and_not_made(
    tmp_path: Path, words: list[str]
) -> None:
    typed = tmp_path / "no" / "such"
    code, told = run(typed, *words)
    if words[0] != "adopt":  # which begins to use a state directory
        assert (code, "there is no state" in told, str(typed) in told) == (3, True, True), told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", LOOKS, ids=" ".join)
def test_looking_leaves_an_empty_state_directory_empty(tmp_path: Path, words: list[str]) -> None:
    code, told = run(tmp_path, *words)
    assert code in (0, 3, 4, 10), told
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_of_the_first_command_needs_no_state(tmp_path: Path) -> None:
    image = tmp_path / "disk.raw"
    image.write_bytes(bytes(1 << 20))
    state = tmp_path / "state"
    words = ("attach", "test", str(image), "--format", "raw", "--level", "connected")
    code, told = run(state, *words, "--dry-run")
    assert (code, state.exists()) == (0, False), told
    code, told = run(state, *words)
    assert (code, (state / "moorline.db").exists()) == (0, True), told
    before = {file: file.read_bytes() for file in state.rglob("*") if file.is_file()}
    for look in LOOKS:
        run(state, *look)
    assert {file: file.read_bytes() for file in state.rglob("*") if file.is_file()} == before


def test_a_library_that_looks_makes_nothing_either(tmp_path: Path) -> None:
    state = tmp_path / "state"
    given = wiring.settings(state_dir=state, hypervisor="test:///default")
    with wiring.open_host(given, own=False) as moorline:
        assert (moorline.attachments.list(), moorline.maintenance.events()) == ([], [])
    assert not state.exists()


def test_a_key_that_is_lost_is_not_replaced_by_looking(tmp_path: Path) -> None:
    """A new one in its place would hide that the old one is to be restored."""
    image = tmp_path / "disk.raw"
    image.write_bytes(bytes(1 << 20))
    state = tmp_path / "state"
    run(state, "attach", "test", str(image), "--format", "raw", "--level", "connected")
    (state / "key").unlink()
    code, told = run(state, "list")
    assert (code, "restore the key file" in told) == (11, True), told
    assert not (state / "key").exists()


def test_a_store_that_is_not_there_is_empty_and_takes_nothing(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "no" / "db", make=False)
    assert (store.list("/"), store.get("/x")) == (([], 0), None)
    with pytest.raises(Unavailable):
        store.commit([], [Put("/x", b"")])
    store.close()
    assert list(tmp_path.iterdir()) == []


def test_a_key_that_is_not_made_is_nobodys(tmp_path: Path) -> None:
    assert Codec.from_file(tmp_path / "key", make=False)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(Unavailable):
        Codec.from_file(tmp_path / "no" / "key")
