"""moorline fleet leave: a host is one of its own again, and starts its guests without asking."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from moorline import wiring
from moorline.cli.commands import main
from moorline.fleet.host_memory import Mark, Marks
from moorline.fleet.leaving import leave
from moorline.fleet.records import Role
from moorline.host.state_lock import HostLock
from moorline.stores.sqlite import SqliteStore
from moorline.testing.toy_store import MemoryStore

NOWHERE = "qemu+unix:///system?socket=/nowhere"
G1 = "7d0f0c1e-5d0b-4c5e-9a37-0f6f0d2b8a11"
WORD = ("--i-know-that-no-other-host-has-it", "the fleet is given up, ticket 4711")
FILES = ("fleet.json", "host.pem", "host.key", "ca.pem", "box.key")
Run = Callable[..., Result]


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    directory = tmp_path / "fleet"
    directory.mkdir()
    for name in (*FILES, "of-somebody-else"):
        (directory / name).write_text("{}")
    return directory


@pytest.fixture
def run(tmp_path: Path, credentials: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    state, conf = tmp_path / "state", tmp_path / "moorline.conf"
    conf.write_text(f"[moorline]\nagent_fleet = {credentials}\nstate_dir = {state}\n")
    monkeypatch.setenv("MOORLINE_HYPERVISOR", NOWHERE)
    wiring.open_host(wiring.settings(files=[conf], hypervisor=NOWHERE)).close()

    def run(*words: str, code: int = 0) -> Result:
        words = ("fleet", "leave", *words, "--config-file", str(conf))
        done = CliRunner().invoke(main, list(words), catch_exceptions=False)
        assert done.exit_code == code, done.output
        return done

    return run


@pytest.fixture
def marks(run: Run, tmp_path: Path) -> Marks:
    """Of a host that has one guest of the fleet, with a volume."""
    marks = Marks(SqliteStore(tmp_path / "state" / "moorline.db"), socket.gethostname())
    marks.accept("an epoch")
    marks.prove("a boot")
    marks.follow(Mark(Role.HERE, 1), G1)
    marks.follow(Mark(), G1, "v")
    return marks


def test_nothing_is_left_of_the_fleet(run: Run, marks: Marks, credentials: Path) -> None:
    told = json.loads(run(*WORD, "--output", "json").stdout)
    assert told == {"guests": [G1], "untold": told["untold"]}
    assert "fleet.json is damaged" in told["untold"], "there is no etcd here"
    assert not marks.guests()
    assert not marks.volumes()
    assert (marks.epoch(), marks.proven()) == ("", "")
    assert [each.name for each in credentials.iterdir()] == ["of-somebody-else"]
    assert "is in no fleet" in run(*WORD, code=3).output


def test_a_persons_word_is_needed_and_kept(run: Run, marks: Marks, tmp_path: Path) -> None:
    assert "1 guests of the fleet" in run(code=3).output
    assert marks.epoch()
    run(*WORD)
    assert (
        "leaves its fleet: the fleet is given up" in (tmp_path / "state/events.jsonl").read_text()
    )


def test_a_dry_run_changes_nothing(run: Run, marks: Marks, credentials: Path) -> None:
    assert "would be in no fleet" in run("--dry-run").output
    assert marks.guests()
    assert (credentials / "fleet.json").exists()


@pytest.mark.parametrize("role", [Role.LEAVING, Role.ARRIVING, Role.GONE])
def test_a_guest_that_is_not_this_hosts_alone_is_in_the_way(
    run: Run, marks: Marks, role: Role
) -> None:
    """Two hosts would have it."""
    marks.follow(Mark(role, 2), G1)
    assert f"the fleet has it {role}" in run(*WORD, code=3).output
    assert f"the fleet has it {role}" in run("--dry-run", code=3).output
    assert marks.epoch()


def test_a_host_without_guests_of_the_fleet_needs_no_word(run: Run, credentials: Path) -> None:
    run()
    assert not (credentials / "fleet.json").exists()


def test_not_while_the_agent_runs(run: Run, marks: Marks, tmp_path: Path) -> None:
    lock = HostLock(tmp_path / "state" / "lock")
    lock.take(1.0, lambda _: None)
    run(*WORD, code=8)
    lock.release()
    assert marks.epoch()


def test_who_is_killed_in_the_midst_repeats_it() -> None:
    """That it is in a fleet is forgotten last: until then no guest starts without a word."""
    store = MemoryStore()
    marks = Marks(store, "h1")
    marks.accept("an epoch")
    for n in range(3):
        marks.follow(Mark(Role.HERE, 1), f"g{n}")
    seen: list[tuple[int, str]] = []
    commit = store.commit
    told: list[str] = []

    class Watched:
        list = store.list
        get = store.get

        def commit(self, *of: object) -> int:
            seen.append((len(marks.guests()), marks.epoch()))
            return commit(*of)  # type: ignore[arg-type]

    leave(Marks(Watched(), "h1"), told.append, vouch="sure")  # type: ignore[arg-type]
    assert [epoch for left, epoch in seen if left] == ["an epoch"] * 3
    assert not marks.epoch()
