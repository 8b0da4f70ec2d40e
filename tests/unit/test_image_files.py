"""Which files images consist of, where very many are asked for at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from moorline.host.image.files import look
from tests.support.disk_images import make, overlay, share

__all__ = ["share"]  # the fixture

MANY = 40


@pytest.fixture
def stats(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the file system is asked about singly."""
    asked: list[str] = []
    for name in ("stat", "lstat"):
        real = getattr(os, name)

        def counted(path: Any, *args: Any, real: Any = real, **options: Any) -> Any:
            asked.append(os.fspath(path))
            return real(path, *args, **options)

        monkeypatch.setattr(os, name, counted)
    return asked


def images(share: Path, *more: Path) -> list[tuple[str, str]]:
    """One, and very many others in its directory."""
    made = [make(share, f"disk{number}", "raw") for number in range(MANY + 1)]
    return [(str(path), "raw") for path in (*made, *more)]


def inodes(looks: list[Any]) -> list[int]:
    return [look[0][2] for look in looks]


def test_very_many_are_told_by_one_listing(share: Path, stats: list[str]) -> None:
    asked = images(share)
    stats.clear()
    found = look(asked, None, first=True)
    others = [path for path in stats if path != asked[0][0]]
    assert len(others) < 3 + len(share.parts), others
    assert inodes(found) == [Path(path).stat().st_ino for path, _ in asked]
    assert {file[0][1] for file in found if isinstance(file, list)} == {share.stat().st_dev}


def test_its_other_names_are_found_among_very_many(share: Path) -> None:
    asked = images(share)
    (share / "hard").hardlink_to(asked[0][0])
    (share / "soft").symlink_to("disk0")
    (share / "dir").mkdir()
    (share / "dir/far").symlink_to("../soft")
    names = ("hard", "soft", "dir/../soft", "dir/far", "dir")
    found = look([*asked, *((str(share / name), "raw") for name in names)], None, first=True)
    mine = found[0]
    hard, *soft, other = found[MANY + 1 :]
    assert isinstance(mine, list)
    assert isinstance(hard, list)
    assert hard[0][1:] == mine[0][1:]
    assert soft == [mine] * 3, "told in full, by the path where a symlink leads"
    assert isinstance(other, list)
    assert other[0][2] == (share / "dir").stat().st_ino


def test_what_is_beneath_very_many_is_looked_at(share: Path) -> None:
    asked = [(str(make(share, "base", "raw")), "raw")]
    tops = [overlay(share, f"top{number}", "base", "raw") for number in range(8)]
    found = look([*asked, *((str(top), "qcow2") for top in tops)], None, first=True)
    assert [file[1:] for file in found[1:] if isinstance(file, list)] == [found[0]] * 8


def test_what_is_not_there_is_told(share: Path) -> None:
    asked = images(share, share / "none", share / "no\0name", share / "disk1/none")
    found = look(asked, [1], first=False)
    assert found[-3:] == [2, 22, 20]
    assert look([(str(share / "none"), "raw"), *asked], None, first=True) == [2] * (len(asked) + 1)


class Listing:
    """Entries that have numbers of their own, as those of some FUSE file systems."""

    def __init__(self, path: Path) -> None:
        self._names = sorted(os.listdir(path))  # noqa: PTH208 - Path.iterdir asks scandir

    def entries(self) -> Iterator[Any]:
        for number, name in enumerate(self._names):
            yield type(
                "Entry",
                (),
                {
                    "name": name,
                    "inode": lambda self, number=number: number,
                    "is_file": lambda self, follow_symlinks: True,
                },
            )()


def test_a_listing_with_other_numbers_is_not_believed(
    share: Path, monkeypatch: pytest.MonkeyPatch, stats: list[str]
) -> None:
    asked = images(share)
    (share / "hard").hardlink_to(asked[0][0])
    asked.append((str(share / "hard"), "raw"))

    @contextmanager
    def scandir(path: Any) -> Iterator[Iterator[Any]]:
        yield Listing(Path(path)).entries()

    monkeypatch.setattr(os, "scandir", scandir)
    stats.clear()
    found = look(asked, None, first=True)
    assert {path for path, _ in asked} <= {*stats}
    assert inodes(found)[0] == inodes(found)[-1]


def test_few_of_a_large_directory_are_asked_for_singly(share: Path) -> None:
    few = [(str(make(share, f"a{number}", "raw")), "raw") for number in range(6)]
    for number in range(2000):
        (share / f"more{number}").touch()
    assert inodes(look(few, None, first=True)) == [Path(path).stat().st_ino for path, _ in few]
