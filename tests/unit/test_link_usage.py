"""Who names a path on a link."""

from __future__ import annotations

from pathlib import PurePath

import pytest

from moorline.core.link_usage import users
from moorline.model import Guest, GuestId

LINK = "/mnt/ab"


def guest(*paths: str) -> Guest:
    return Guest(GuestId("1"), "web01", True, {}, frozenset(paths))


@pytest.mark.parametrize("path", [LINK, f"{LINK}/v", f"{LINK}/deep/er"])
def test_the_link_and_what_is_on_it(path: str) -> None:
    assert users(LINK, [guest("/other", path)]) == ["web01"]


@pytest.mark.parametrize(
    "path", ["/", "/mnt", "/mnt/a", "/mnt/abc", "/mnt/abc/v", "/mnt/x/mnt/ab/v", "mnt/ab/v", "ab/v"]
)
def test_what_only_looks_like_it_is_not(path: str) -> None:
    assert users(LINK, [guest(path)]) == []


@pytest.mark.parametrize("link", [LINK, "/", "/dev/sdb", "[datastore] folder"])
@pytest.mark.parametrize("path", ["/mnt/ab/v", "/dev/sdb", "/dev/sdb1", "[datastore] folder/d"])
def test_it_is_told_as_paths_are_told(link: str, path: str) -> None:
    on_it = PurePath(link) in (PurePath(path), *PurePath(path).parents)
    assert bool(users(link, [guest(path)])) is on_it
