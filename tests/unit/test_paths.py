"""Where paths lead: through symlinks, onto shares, over copies of mounts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import pytest

from moorline.errors import Uncertain
from moorline.host.linux import Linux
from moorline.host.paths import places
from moorline.host.probe.child import follow
from moorline.ports import Mount


def mount(target: Path | str, device: str, fstype: str = "fuse.quobyte") -> Mount:
    return Mount(1, "source", str(target), fstype, device, shared=True)


class Followed:
    """Follows here, but for shares that hang; says what it was asked of."""

    def __init__(self, *hung: Path) -> None:
        self.hung = {*map(str, hung)}
        self.asked: list[str] = []

    def __call__(self, share: str, paths: Sequence[str], stops: Collection[str]) -> Sequence[str]:
        self.asked.append(share)
        if share in self.hung:
            raise Uncertain(f"{share} does not answer")
        real: Sequence[str] = follow([*paths], [*stops])["real"]
        return real


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "share").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "share/disk").touch()
    return tmp_path


def test_symlinks_are_followed_wherever_they_are(root: Path) -> None:
    (root / "link").symlink_to(root / "share/disk")
    (root / "dir").symlink_to("share")
    (root / "chain").symlink_to("dir/disk")
    (root / "share/up").symlink_to("../other/new")
    table = [mount("/", "8:1", "ext4"), mount(root / "share", "0:9")]
    at = {name: str(root / name) for name in ("link", "dir/disk", "chain", "dir/../chain")}
    found = places([*at.values(), str(root / "share/up")], table, Followed())
    for path in at.values():
        assert found[path] == {str(root / "share/disk")}
    assert found[str(root / "share/up")] == {str(root / "other/new")}


def test_what_cannot_be_told_is_not_guessed(root: Path) -> None:
    (root / "loop").symlink_to("loop")
    (root / "fd").symlink_to("/proc/self/fd")
    asked = [str(root / "loop"), str(root / "fd/3"), "/proc/1/fd/3", "/dev/fd/3"]
    assert places(asked, [mount("/", "8:1", "ext4")], Followed()) == dict.fromkeys(asked)


def test_a_share_that_hangs_hides_its_own_paths_alone(root: Path) -> None:
    (root / "link").symlink_to(root / "share/disk")
    table = [mount(root / "share", "0:9"), mount(root / "other", "0:10", "nfs4")]
    here, on_other, on_share = (str(root / n) for n in ("x", "other/y", "link"))
    follows = Followed(root / "share")
    found = places([here, on_other, on_share], table, follows)
    assert found == {here: {here}, on_other: {on_other}, on_share: None}
    assert sorted(follows.asked) == ["/", str(root / "other"), str(root / "share")]


@pytest.mark.parametrize("fstype", ["lustre", "beegfs", "of.a.later.vendor", "autofs", "ocfs2"])
def test_a_file_system_that_nobody_knows_may_hang(root: Path, fstype: str) -> None:
    """A back end for it may be another's: paths outside of it are followed without it."""
    follows = Followed(root / "share")
    table = [mount("/", "8:1", "ext4"), mount(root / "share", "0:9", fstype)]
    here, there = str(root / "x"), str(root / "share/disk")
    assert places([here, there], table, follows) == {here: {here}, there: None}
    assert sorted(follows.asked) == ["/", str(root / "share")]


def test_a_copy_of_a_mount_is_that_mount(root: Path) -> None:
    """A bind mount of the directory above copies what is mounted in it later."""
    table = [
        mount("/srv/reg-vol-1", "0:9"),
        mount("/alt/reg-vol-1", "0:9"),
        mount("/mine", "0:9"),
        mount("/srv/reg-vol-2", "0:10"),
    ]
    found = places(["/alt/reg-vol-1/disk", "/mine/disk"], table, Followed())
    assert found["/alt/reg-vol-1/disk"] == {"/alt/reg-vol-1/disk", "/srv/reg-vol-1/disk"}
    assert found["/mine/disk"] == {"/mine/disk"}, "it stays when the other is unmounted"


def test_a_child_follows_for_the_host(root: Path) -> None:
    (root / "link").symlink_to("share/disk")
    host = Linux(systemd=False)
    try:
        path = str(root / "link")
        assert host.places([path]) == {path: {str(root / "share/disk")}}
    finally:
        host.close()


def test_what_is_told_of_many_at_once_is_what_is_told_of_each(root: Path) -> None:
    """Directories that many paths have in common are asked once; each leads where it led."""
    (root / "dir").symlink_to("share")
    (root / "abs").symlink_to(root / "other")
    (root / "share/up").symlink_to("../other/new")
    (root / "share/loop").symlink_to("loop")
    (root / "out").symlink_to("share/..")
    ways = ("share", "dir", "abs", "out/share", "dir/../other", "share/up/..", "none/..")
    names = ("disk", "up", "loop", "new", "../share/up", "")
    paths = [f"{root}/{way}/{name}" for way in ways for name in names]
    for stops in ([], [str(root / "share")], [str(root / "share/up")], ["/"]):
        assert follow(paths, stops)["real"] == [follow([path], stops)["real"][0] for path in paths]
