"""One file at two guests is found; what they may have together is no finding."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moorline.care import finding_texts
from moorline.care.shared_files import SharedFiles
from moorline.host.linux import Linux
from moorline.model import Guest, GuestId, Use
from moorline.ports.inspection import OpenFile
from moorline.testing.toy_host import ToyHost, ToyShare
from tests.support.disk_images import make, overlay


@pytest.fixture
def host() -> Iterator[Linux]:
    linux = Linux(systemd=False)
    yield linux
    linux.close()


def guest(name: str, *uses: Use, running: bool = True) -> Guest:
    paths = frozenset(use.path for use in uses)
    return Guest(GuestId(name), name, running, {}, paths, uses=frozenset(uses))


def use(path: Path, form: str = "raw", **how: Any) -> Use:
    return Use(str(path), form, **how)


def found(host: Any, *guests: Guest) -> list[tuple[str, str]]:
    return [(a.guest.name, b.guest.name) for a, b in SharedFiles(host).find(guests)]


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("name", ["same", "hard", "soft"])
def test_two_that_write(host: Linux, tmp_path: Path, name: str, running: bool) -> None:
    path = make(tmp_path, "a", "raw")
    also = path
    if name == "hard":
        os.link(path, also := tmp_path / "b")
    if name == "soft":
        (also := tmp_path / "b").symlink_to(path)
    guests = [guest("g1", use(path)), guest("g2", use(also), running=running)]
    assert len(found(host, *guests)) == 1
    assert found(host, guest("g1", use(path)), guest("g2", use(make(tmp_path, "c", "raw")))) == []


@pytest.mark.parametrize("how", [{"readonly": True}, {"shared": True}])
def test_two_that_may(host: Linux, tmp_path: Path, how: Any) -> None:
    path = make(tmp_path, "a", "raw")
    may = guest("g1", use(path, **how)), guest("g2", use(path, **how))
    assert found(host, *may) == []
    assert found(host, *may, guest("g3", use(path))) != []


def test_images_above_one_base(host: Linux, tmp_path: Path) -> None:
    base = make(tmp_path, "base", "qcow2")
    tops = [overlay(tmp_path, name, "base") for name in "abcdef"]
    clones = [guest(f"g{top.name}", use(top, "qcow2")) for top in tops]
    assert found(host, *clones) == []
    assert found(host, *clones, guest("template", use(base, "qcow2"), running=False)) == []
    assert found(host, *clones, guest("template", use(base, "qcow2"))) != []


def test_a_guest_and_its_own_snapshot(host: Linux, tmp_path: Path) -> None:
    """It runs with the overlay, and is defined with the volume."""
    base = make(tmp_path, "base", "raw")
    top = overlay(tmp_path, "top", "base", "raw")
    below = use(base, readonly=True, volume="v")
    assert found(host, guest("g1", use(top, "qcow2", volume="v"), below, use(base))) == []


def test_two_volumes_of_one_guest(host: Linux, tmp_path: Path) -> None:
    path = make(tmp_path, "a", "raw")
    os.link(path, tmp_path / "b")
    both = use(path, volume="v1"), use(tmp_path / "b", volume="v2")
    assert found(host, guest("g1", *both)) == [("g1", "g1")]


def test_what_is_not_there_and_what_is_no_path(host: Linux, tmp_path: Path) -> None:
    uses = use(tmp_path / "none"), Use("pool/image", "raw"), Use("", "raw")
    assert found(host, guest("g1", *uses), guest("g2", *uses)) == []


class Counting(ToyHost):
    asked = 0

    def files(self, *args: Any, **how: Any) -> Any:
        self.asked += 1
        return super().files(*args, **how)


def test_each_share_is_asked_once_and_one_that_hangs_hides_nothing_else() -> None:
    """Their files have the same numbers: that alone makes nobody look closer."""
    host, files = Counting(), frozenset({"a", "b"})
    guests = []
    for name in ("one", "two", "three"):
        host.mount(f"quobyte@reg/{name}", f"/m/{name}", "fuse.quobyte", ToyShare(files=files))
        uses = [Use(f"/m/{name}/{file}", "raw") for file in files]
        guests += [guest(f"{name} {each.path}", each) for each in uses]
    assert found(host, *guests) == []
    assert host.asked == 3
    host.share("/m/one").hangs = True
    assert len(found(host, *guests, guest("other", Use("/m/two/a", "raw")))) == 1


def test_two_mounts_of_one_share() -> None:
    host = ToyHost()
    for name in ("one", "two"):
        share = ToyShare(files=frozenset({"a"}))
        host.mount("quobyte@reg/vol", f"/m/{name}", "fuse.quobyte", share)
    guests = guest("g1", Use("/m/one/a", "raw")), guest("g2", Use("/m/two/a", "raw"))
    assert len(found(host, *guests)) == 1


def test_what_is_said_names_both_and_helps(host: Linux, tmp_path: Path) -> None:
    base = make(tmp_path, "base", "qcow2")
    top = overlay(tmp_path, "top", "base")
    mine = guest("g1", use(base, "qcow2", volume="v"))
    ((one, other),) = SharedFiles(host).find([mine, guest("g2", use(top, "qcow2"), running=False)])
    said = finding_texts.shared_file(one, other, {("g1", "v")})
    assert (said.check, said.subject) == ("shared-file", str(base))
    assert f"g1, which runs, has {base}, and g2, which is stopped, has" in said.what
    assert f"{base} beneath {top}" in said.what
    assert said.next == "moorline detach g1 v"
    assert finding_texts.shared_file(one, other, set()).next == "moorline disks g2"


@pytest.mark.parametrize("both", [True, False])
@pytest.mark.parametrize("readonly", [True, False])
def test_what_is_open_though_no_path_leads_there(
    host: Linux, tmp_path: Path, both: bool, readonly: bool
) -> None:
    path = make(tmp_path, "a", "raw")
    lost = OpenFile("/lost", path.stat().st_ino, 0, readonly, None)

    def opened(guest: Guest, numbers: object) -> list[OpenFile]:
        return [lost] if both or guest.name == "g1" else []

    guests = [guest("g1"), guest("g2", *([] if both else [use(path, readonly=readonly)]))]
    pairs = list(SharedFiles(host, opened).find(guests))
    assert [{a.guest.name, b.guest.name} for a, b in pairs] == ([] if readonly else [{"g1", "g2"}])


def test_what_is_open_where_a_path_leads_is_told_by_the_path(host: Linux, tmp_path: Path) -> None:
    path = make(tmp_path, "a", "raw")
    file = OpenFile(str(path), path.stat().st_ino, 0, False, None)
    shared = [guest(name, use(path, shared=True)) for name in ("g1", "g2")]
    assert list(SharedFiles(host, lambda *_: [file]).find(shared)) == []


def disk(name: str, **how: Any) -> Use:
    return Use(name, "raw", **how)


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize(
    ("one", "other", "word"),
    [
        ("nbd://a:10809/one", "nbd://a:10809/one", "is one disk"),
        ("nbd://a:10809/", "nbd://a:10809/one", "may be one disk"),
        ("nbd+unix:///one?socket=/s", "nbd+unix:///one?socket=/s", "is one disk"),
        ("iscsi:iqn.2026-01.lab:a/1", "iscsi:iqn.2026-01.lab:a/1", "is one disk"),
        ("rbd:vols/one", "rbd:vols/one", "is one disk"),
        ("gluster://a:24007/vols%2Fone", "gluster://a:24007/vols%2Fone", "is one disk"),
    ],
)
def test_two_that_write_to_a_servers_disk(one: str, other: str, word: str, running: bool) -> None:
    host: Any = ToyHost()
    guests = guest("g1", disk(one)), guest("g2", disk(other), running=running)
    (pair,) = SharedFiles(host).find(guests)
    finding = finding_texts.shared_file(*pair, {("g1", "")})
    assert word in finding.what
    assert {each.guest.name for each in pair} == {"g1", "g2"}
    for how in ({"readonly": True}, {"shared": True}):
        assert found(host, guest("g1", disk(one, **how)), guest("g2", disk(other, **how))) == []
    assert found(host, guest("g1", disk(one, readonly=True)), guests[1]) != []


def test_different_disks_of_servers() -> None:
    host: Any = ToyHost()
    names = ("nbd://a:10809/one", "nbd://a:10809/two", "nbd://b:10809/", "rbd:vols/one")
    assert found(host, *(guest(f"g{n}", disk(name)) for n, name in enumerate(names))) == []
