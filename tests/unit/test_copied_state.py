"""A state directory that was copied on one machine is no second owner of its attachments."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from moorline.core.state_owner import OWNER, Identity, Owner, state_id
from moorline.errors import Refused, Unavailable
from moorline.ports import Put
from moorline.secret import Secret
from moorline.stores.codec import Codec
from moorline.testing.toys import MemoryStore
from tests.unit.test_state_owner import Host, attach, volumes

CODEC = Codec(Secret(b"k" * 32))
HERE = Identity("h1", "m1", "qemu:///system")


class Directories(dict[str, MemoryStore]):
    """States by where they lie."""

    def owner(self, directory: str) -> Owner:
        def id_in(other: str) -> str | None:
            return state_id(self[other]) if other in self else ""

        return Owner(self[directory], CODEC, directory, id_in)

    def copy_of(self, directory: str) -> MemoryStore:
        store = MemoryStore()
        entry = self[directory].get(OWNER)
        assert entry is not None
        store.commit([], [Put(OWNER, entry.value)])
        return store


@pytest.fixture
def states() -> Directories:
    states = Directories(a=MemoryStore())
    states.owner("a").check(HERE, own=True)
    return states


@pytest.mark.parametrize("own", [True, False])
def test_a_copy_is_refused_while_its_original_is_there(states: Directories, own: bool) -> None:
    states["b"] = states.copy_of("a")
    with pytest.raises(Refused, match="a copy of that in a, which is there still"):
        states.owner("b").check(HERE, own=own)
    states.owner("a").check(HERE, own=own)
    told = states.owner("b").tell(HERE)
    assert (told.steps, told.original) == (["rebind"], "a")
    assert "a copy of that in a" in told.refused
    assert "state rebind" in told.refused
    told = states.owner("b").rebind(HERE, dry_run=False)
    assert (told.steps, told.original, told.refused) == (["rebind"], "a", "")
    told = states.owner("b").rebind(HERE, dry_run=False)
    assert (told.steps, told.original) == ([], "")
    assert states.owner("b").tell(HERE).refused == ""
    for each in states:
        states.owner(each).check(HERE, own=own)
    assert state_id(states["a"]) != state_id(states["b"])


def test_what_was_moved_or_copied_back_is_no_copy(states: Directories) -> None:
    states["b"] = states.pop("a")
    states.owner("b").check(HERE, own=False)
    states["a"] = MemoryStore()  # another that was begun where it was
    states.owner("a").check(HERE, own=True)
    for _ in range(2):
        states.owner("b").check(HERE, own=True)
    states["b"] = states.copy_of("b")
    states.owner("b").check(HERE, own=True)
    assert states.owner("b").tell(HERE).steps == []


def test_an_original_that_cannot_be_read_may_be_there(states: Directories) -> None:
    hidden = Owner(states["a"], CODEC, "b", lambda _: None)
    with pytest.raises(Refused, match="a copy of that in a"):
        hidden.check(HERE, own=True)


def test_to_be_renamed_makes_a_copy_no_original(states: Directories) -> None:
    states["b"] = states.copy_of("a")
    states.owner("b").rename("h2", HERE, dry_run=False)
    with pytest.raises(Refused, match="a copy of that in a"):
        states.owner("b").check(replace(HERE, host="h2"), own=True)


# --- what the commands say ---


@pytest.fixture
def host(tmp_path: Path) -> Host:
    pytest.importorskip("libvirt")
    return Host(tmp_path)


def test_of_a_copy_the_commands_for_the_state_say_what_it_is(host: Host) -> None:
    attach(host)
    original, copy = host.state, host.directory / "copy"
    shutil.copytree(original, copy, ignore=shutil.ignore_patterns("lock", "mnt"))
    host.state = copy
    code, told = host("list")
    assert code == 3, told
    code, told = host("state", "show")
    assert code == 0, told
    assert f"refused to all else: the state is a copy of that in {original}" in told
    assert "moorline state rebind" in told
    code, told = host("state", "rebind")
    assert code == 0, told
    assert f"the state in {original} has the same attachments: use it no more" in told
    code, told = host("state", "show")
    assert (code, "is a copy" in told, "refused" in told) == (0, False, False)
    assert volumes(host) == 1


def test_an_original_that_hangs_holds_them_up_no_longer_than_a_look(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    attach(host)
    original, copy = host.state, host.directory / "copy"
    shutil.copytree(original, copy, ignore=shutil.ignore_patterns("lock", "mnt"))
    host.state = copy
    looked = []

    def look(_: object, state_dir: Path) -> bool:
        looked.append(state_dir)
        raise Unavailable("it does not answer")

    monkeypatch.setattr("moorline.state_wiring.look", look)
    monkeypatch.setattr(Path, "samefile", lambda *_: pytest.fail("asked without a deadline"))
    code, told = host("state", "show")
    assert (code, f"copy of that in {original}" in told) == (0, True), told
    assert {*looked} == {original}


def test_of_a_clone_they_say_on_which_machine_it_was_made(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    attach(host)
    monkeypatch.setattr("moorline.host.machine_id.machine_id_digest", lambda: "another")
    code, told = host("state", "show")
    assert (code, "refused to all else: the state was made on another machine" in told) == (0, True)
    shown = json.loads(host("state", "show", "-o", "json")[1])
    assert (shown["steps"], shown["original"]) == (["rebind"], "")
    code, told = host("state", "rename", "h9", "--dry-run")
    assert code == 0, told
