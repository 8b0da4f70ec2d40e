"""A state directory that was copied on one machine is no second owner of its attachments."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moorline.core.state_owner import OWNER, Identity, Owner, state_id
from moorline.errors import Refused
from moorline.ports import Put
from moorline.secret import Secret
from moorline.stores.codec import Codec
from moorline.testing.toys import MemoryStore

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
