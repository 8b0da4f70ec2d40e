"""Several state directories on one host: what one keeps is not taken over by another."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from moorline import config, state_wiring
from moorline.core.records import Records
from moorline.core.state_owner import Identity
from moorline.errors import MoorlineError, Refused, Unavailable, Uncertain
from moorline.host.known_state_dirs import KnownStates, look
from moorline.model import Attachment, GuestId, Key, Level, LinkName, VolumeId
from moorline.secret import Secret
from moorline.stores.codec import Codec
from moorline.stores.sqlite import SqliteStore

CODEC = Codec(Secret(b"k" * 32))
HERE = Identity("h1", "m1", "qemu:///system")
GUEST, VOLUME = GuestId("13e66266-9296-4d32-9a6f-e9e994405195"), VolumeId("vol-1")


def test_a_state_is_known_where_it_lies_now(tmp_path: Path) -> None:
    first, second, third = (str(UUID(int=number)) for number in (1, 2, 3))
    known = KnownStates(tmp_path / "run")
    assert known.all() == []
    for name in ("a", "b c", "d"):
        (tmp_path / name).mkdir()
    known.note(first, tmp_path / "a")
    known.note(second, tmp_path / "b c")
    known.note(first, tmp_path / "d")
    (tmp_path / "run/states/note").write_text("/x")
    (tmp_path / "run/states" / str(UUID(int=4))).write_bytes(b"\xff")
    assert known.all() == [(first, tmp_path / "d"), (second, tmp_path / "b c")]
    (tmp_path / "b c").rmdir()
    known.note(third, tmp_path / "a")
    assert known.all() == [(first, tmp_path / "d"), (third, tmp_path / "a")]


def test_no_note_goes_where_another_user_leads(tmp_path: Path) -> None:
    """Anybody may make a directory of that name in /dev/shm first."""
    (tmp_path / "mine").mkdir()
    file = tmp_path / "mine" / str(UUID(int=1))
    file.write_text("/no/such/directory\n")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/states").symlink_to(tmp_path / "mine")
    known = KnownStates(tmp_path / "run")
    known.note(str(UUID(int=2)), tmp_path)
    assert known.all() == []
    assert [*(tmp_path / "mine").iterdir()] == [file]


def test_where_nothing_can_be_noted_nothing_is_known(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    known = KnownStates(tmp_path / "run")
    known.note(str(UUID(int=1)), tmp_path)
    assert known.all() == []


def opened(directory: Path) -> SqliteStore:
    """A state that has an owner, as any command makes one."""
    directory.mkdir(exist_ok=True)
    store = SqliteStore(directory / "moorline.db")
    given = config.load([], list, state_dir=directory)
    state_wiring.owner_of(given, store, CODEC).check(HERE, own=True)
    state_wiring.make_known(given, store, KnownStates(directory.parent / "run"))
    return store


def test_what_another_state_wants_is_found(tmp_path: Path) -> None:
    one, other = opened(tmp_path / "one"), opened(tmp_path / "other")
    row = Attachment(
        Key("h2", VOLUME, GUEST), "toy", Secret({}), LinkName("/l"), "p", Level.ATTACHED
    )
    row = Records(other, CODEC, "h2").put(row)
    known = KnownStates(tmp_path / "run")
    keeper, own = (state_wiring.kept_elsewhere(each, known) for each in (one, other))
    assert keeper(GUEST, VOLUME) == str(tmp_path / "other")
    assert keeper(GUEST, VolumeId("vol-2")) == ""
    assert own(GUEST, VOLUME) == ""
    Records(other, CODEC, "h2").forget(row)
    assert keeper(GUEST, VOLUME) == ""
    Records(other, CODEC, "h2").put(replace(row, revision=0))
    other.close()
    (tmp_path / "other/moorline.db").rename(tmp_path / "moorline.db")
    assert keeper(GUEST, VOLUME) == "", "it is no state any more"
    one.close()


def test_what_another_state_launched_is_found(tmp_path: Path) -> None:
    one, other = opened(tmp_path / "one"), opened(tmp_path / "other")
    known = KnownStates(tmp_path / "run")
    theirs = Records(other, CODEC, "h2")
    theirs.launched(GUEST)
    here, there = (state_wiring.launched_elsewhere(each, known) for each in (one, other))
    assert (here(GUEST), there(GUEST)) == (str(tmp_path / "other"), "")
    assert here(GuestId("another")) == ""
    theirs.drop_launched(GUEST)
    assert here(GUEST) == ""
    one.close()
    other.close()


def test_a_state_that_cannot_be_read_may_have_it(tmp_path: Path) -> None:
    one, other = opened(tmp_path / "one"), opened(tmp_path / "other")
    other.close()
    (tmp_path / "other/moorline.db").write_bytes(b"no database" * 1000)
    with pytest.raises(MoorlineError):
        state_wiring.kept_elsewhere(one, KnownStates(tmp_path / "run"))(GUEST, VOLUME)
    one.close()


def test_a_state_on_a_share_that_hangs_holds_nobody_up(tmp_path: Path) -> None:
    """What it has cannot be told; whatever need not know it goes on."""
    one, other = opened(tmp_path / "one"), opened(tmp_path / "other")
    hung = tmp_path / "other"

    def root(path: Path, *, list: bool) -> None:
        if path == hung:
            raise Uncertain(f"{path} does not answer")

    host: Any = SimpleNamespace(root=root)
    known = KnownStates(tmp_path / "run", is_there=partial(look, host))
    for elsewhere in (
        partial(state_wiring.kept_elsewhere(one, known), GUEST, VOLUME),
        partial(state_wiring.launched_elsewhere(one, known), GUEST),
    ):
        with pytest.raises(Unavailable, match=f"{hung} does not answer"):
            elsewhere()
    known.note(str(UUID(int=7)), tmp_path / "third")
    assert hung in [lies for _, lies in known.all()], "it may be there still"
    copied = config.load([], list, state_dir=tmp_path / "copy")
    owner = state_wiring.owner_of(copied, other, CODEC, known)
    with pytest.raises(Refused, match="is a copy of that in"):
        owner.check(HERE, own=False)
    one.close()
    other.close()
