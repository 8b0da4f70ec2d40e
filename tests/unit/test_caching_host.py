"""A snapshot of a host asks each thing once, and says the same as long as it is used."""

from __future__ import annotations

from pathlib import Path

import pytest

from moorline.errors import Uncertain
from moorline.host.caching_host import Snapshot
from moorline.ports import Root
from moorline.ports.host import Remembering
from moorline.testing.toy_host import ToyHost, ToyShare

AT = Path("/mnt/a")


class Counting(ToyHost):
    looks = 0

    def root(self, path: Path, *, list: bool = False) -> Root:
        self.looks += 1
        return super().root(path, list=list)


def test_each_link_is_asked_once() -> None:
    host = Counting()
    host.mount("share", str(AT), "fuse.toy", ToyShare())
    snapshot = Snapshot(host)
    assert snapshot.root(AT) == snapshot.root(AT) == host.root(AT)
    assert host.looks == 2  # one of them was ours
    host.unmount(str(AT))
    assert len(snapshot.mounts()) == 0
    host.mount("share", str(AT), "fuse.toy", ToyShare())
    assert len(snapshot.mounts()) == 0
    assert len(Snapshot(host).mounts()) == 1


def test_a_share_that_hangs_is_waited_for_once() -> None:
    host = Counting()
    host.mount("share", str(AT), "fuse.toy", ToyShare(hangs=True))
    snapshot = Snapshot(host)
    for _ in range(3):
        with pytest.raises(Uncertain):
            snapshot.root(AT)
    assert host.looks == 1


def test_what_follows_from_its_answers_is_found_out_once() -> None:
    snapshot, asked = Snapshot(ToyHost()), 0

    def ask() -> int:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise Uncertain("it hangs")
        return asked

    assert isinstance(snapshot, Remembering)
    assert [snapshot.once("a", ask), snapshot.once("a", ask)] == [1, 1]
    for _ in range(2):
        with pytest.raises(Uncertain):
            snapshot.once("b", ask)
    assert asked == 2


def test_other_questions_are_other_answers(tmp_path: Path) -> None:
    snapshot = Snapshot(ToyHost())
    assert snapshot.root(tmp_path).empty is None
    assert snapshot.root(tmp_path, list=True).empty is True
