"""A file that a running guest has open is not given to another, wherever its paths lead."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from moorline.core import file_clashes
from moorline.core.file_clashes import FileClashes
from moorline.errors import Refused
from moorline.host.linux import Linux
from moorline.model import (
    Attachment,
    Disk,
    DiskOptions,
    DiskState,
    Guest,
    GuestId,
    ImageFile,
    Key,
    Level,
    LinkName,
    Use,
    VolumeId,
)
from moorline.ports import FileId, Mount
from moorline.ports.inspection import OpenFile
from moorline.secret import Secret
from tests.support.disk_images import make, overlay

WRITES = DiskOptions()
NO_MOUNT: Mount | None = None


class Survey:
    """A look at guests alone."""

    rows: Sequence[Attachment] = ()
    by_link: dict[Any, Any] = {}  # noqa: RUF012 - empty
    links: Any = None

    def __init__(self, *guests: Guest) -> None:
        self.guests = guests


class Opens:
    """What guests have open, by their names; counts how often it is asked."""

    def __init__(self, **files: Sequence[OpenFile]) -> None:
        self.files = files
        self.asked: list[tuple[str, Collection[int]]] = []

    def __call__(self, guest: Guest, numbers: Collection[int]) -> Sequence[OpenFile]:
        self.asked.append((guest.name, numbers))
        return [f for f in self.files.get(guest.name, ()) if (f.node or f.inode) in numbers]


@pytest.fixture
def host() -> Iterator[Linux]:
    linux = Linux(systemd=False)
    yield linux
    linux.close()


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_clashes, "CLOSE_TIMEOUT_SECONDS", 0.05)


def guest(name: str, *uses: Use, **how: Any) -> Guest:
    paths = frozenset(use.path for use in uses)
    values = {"running": True, "disks": {}, "uses": frozenset(uses), "paths": paths}
    return Guest(**{"id": GuestId(name), "name": name, **values, **how})


def attachment(options: DiskOptions = WRITES, **how: Any) -> Attachment:
    key = Key("h", VolumeId("v"), GuestId("mine"))
    nowhere = Secret[Any]({}), LinkName("/"), "p", Level.ATTACHED
    return Attachment(key, "local", *nowhere, "mine", options, **how)


def mount_of(host: Linux, path: Path) -> Mount:
    device = path.stat().st_dev
    return next(m for m in host.mounts() if m.device == f"{os.major(device)}:{os.minor(device)}")


def has_open(path: Path, mount: Mount | None, *, readonly: bool = False) -> OpenFile:
    return OpenFile("/gone", path.stat().st_ino, 0, readonly, mount)


def look(
    host: Linux,
    opens: Opens,
    image: Path,
    row: Attachment,
    *guests: Guest,
    form: Any = "raw",
    known: Collection[int] = (),
) -> None:
    """*known*: the numbers that were known when all guests were looked at."""
    file_clashes = FileClashes(host, opens)
    everyone = file_clashes.look(Survey(*guests), known)  # type: ignore[arg-type]
    file_clashes.refuse_others(row, ImageFile(image, form), everyone)


@pytest.mark.parametrize("gone", [True, False])
@pytest.mark.parametrize("readonly", [True, False])
def test_it_is_refused_with_the_guest_s_name(
    host: Linux, tmp_path: Path, gone: bool, readonly: bool
) -> None:
    image = make(tmp_path, "a", "raw")
    opens = Opens(g2=[has_open(image, None if gone else mount_of(host, image))])
    row = attachment(DiskOptions(readonly=readonly))
    with pytest.raises(Refused, match=f"g2 has {image} open already, as /gone"):
        look(host, opens, image, row, guest("g1"), guest("g2", Use("/not/there", "raw")))


def test_guests_are_asked_once_where_the_file_s_number_is_known_before(
    host: Linux, tmp_path: Path
) -> None:
    image, other = make(tmp_path, "a", "raw"), make(tmp_path, "b", "raw")
    opens = Opens(g2=[has_open(other, NO_MOUNT)])
    numbers = frozenset(file.stat().st_ino for file in (image, other))
    look(host, opens, image, attachment(), guest("g1"), guest("g2"), known=numbers)
    assert opens.asked == [("g1", numbers), ("g2", numbers)]
    opens.files["g2"] = [has_open(image, NO_MOUNT)]
    with pytest.raises(Refused, match=f"g2 has {image} open already"):
        look(host, opens, image, attachment(), guest("g1"), guest("g2"), known=numbers)


def test_a_file_whose_number_was_another_when_guests_were_looked_at(
    host: Linux, tmp_path: Path
) -> None:
    image, other = make(tmp_path, "a", "raw"), make(tmp_path, "b", "raw")
    opens = Opens(g2=[has_open(image, NO_MOUNT)])
    with pytest.raises(Refused, match=f"g2 has {image} open already"):
        look(host, opens, image, attachment(), guest("g2"), known=[other.stat().st_ino])


def test_one_beneath_the_image(host: Linux, tmp_path: Path) -> None:
    base = make(tmp_path, "base", "raw")
    top = overlay(tmp_path, "top", "base", "raw")
    opens = Opens(g2=[has_open(base, NO_MOUNT)])
    with pytest.raises(Refused, match=f"g2 has {base} open already"):
        look(host, opens, top, attachment(), guest("g2"), form="qcow2")
    reads = Opens(g2=[has_open(base, NO_MOUNT, readonly=True)])
    look(host, reads, top, attachment(), guest("g2"), form="qcow2")


def test_another_file_system_has_the_same_numbers(host: Linux, tmp_path: Path) -> None:
    image = make(tmp_path, "a", "raw")
    elsewhere = Mount(1, "/dev/sdz", "/z", "ext4", "999:1", shared=True)
    look(host, Opens(g2=[has_open(image, elsewhere)]), image, attachment(), guest("g2"))


@pytest.mark.parametrize("options", [DiskOptions(readonly=True), DiskOptions(shared=True)])
def test_what_both_may_have_together_is_no_clash(
    host: Linux, tmp_path: Path, options: DiskOptions
) -> None:
    image = make(tmp_path, "a", "raw")
    use = Use(str(image), "raw", options.readonly, options.shared)
    opens = Opens(g2=[has_open(image, mount_of(host, image), readonly=options.readonly)])
    look(host, opens, image, attachment(options), guest("g2", use))


@pytest.mark.parametrize(
    ("how", "options"),
    [
        ({"running": False}, {}),
        ({"id": "mine"}, {"hands_off": True}),
        ({"id": "mine", "disks": {VolumeId("v"): Disk(DiskState.PARTIAL)}}, {}),
    ],
)
def test_who_cannot_have_it_open_for_somebody_else_is_not_asked(
    host: Linux, tmp_path: Path, how: Any, options: Any
) -> None:
    """A stopped guest; the volume's own, of which Nova plugs the disk, or that has it in half."""
    image = make(tmp_path, "a", "raw")
    opens = Opens(g2=[has_open(image, NO_MOUNT)])
    their = guest("g2", **how)
    look(host, opens, image, attachment(**options), their)
    assert opens.asked == []


def test_who_lets_it_go_gets_a_moment(host: Linux, tmp_path: Path) -> None:
    """libvirt tells that a disk is gone a little before QEMU has closed its file."""
    image = make(tmp_path, "a", "raw")

    class Closing(Opens):
        def __call__(self, guest: Guest, numbers: Collection[int]) -> Sequence[OpenFile]:
            found = super().__call__(guest, numbers)
            self.files = {}
            return found

    opens = Closing(g2=[has_open(image, NO_MOUNT)])
    look(host, opens, image, attachment(), guest("g2"))
    assert len(opens.asked) == 2


def test_each_running_guest_is_asked_once_and_for_the_file_s_number_alone(
    host: Linux, tmp_path: Path
) -> None:
    image = make(tmp_path, "a", "raw")
    opens = Opens()
    look(host, opens, image, attachment(), *(guest(f"g{n}") for n in range(9)))
    assert [numbers for _, numbers in opens.asked] == [{image.stat().st_ino}] * 9


@pytest.mark.parametrize(("node", "same"), [(10, True), (8, True), (11, False), (0, False)])
def test_a_device_is_known_by_its_own_number_and_those_beneath(node: int, same: bool) -> None:
    mine = FileId("/dev/dm-1", 5, 700, node=10, lower=(8,))
    theirs = OpenFile("/dev/x", 700, node, False, NO_MOUNT)
    assert file_clashes.is_open(mine, NO_MOUNT, theirs) is same
