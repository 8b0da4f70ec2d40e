"""One file, one who writes to it: whoever has it, by whatever name."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moorline.api import Moorline
from moorline.backends.local import LocalFile
from moorline.core.file_clashes import FileClashes
from moorline.core.locks import Locks
from moorline.core.reconciler import Reconciler
from moorline.errors import Refused, Unavailable, Uncertain
from moorline.host.linux import Linux
from moorline.model import (
    DiskOptions,
    Guest,
    GuestId,
    GuestName,
    ImageFile,
    Level,
    Use,
)
from moorline.ports import FileId, Host, Mount
from moorline.testing.toy_host import ToyHost, ToyShare
from moorline.testing.toys import BASE, ToyHypervisor
from moorline.testing.toys import ToyShare as ToyExports
from tests.support.disk_images import make, overlay
from tests.support.environment import bare
from tests.support.rig import Rig

S1 = str(BASE / "s1")
G2 = GuestId("g2")
READONLY, SHARED, WRITES = DiskOptions(readonly=True), DiskOptions(shared=True), DiskOptions()


def connection(name: str = "a") -> dict[str, Any]:
    return {"driver_volume_type": "toy", "data": {"share": "s1", "name": name}}


# --- what a guest names ------------------------------------------------------


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("level", [Level.ATTACHED, Level.CONNECTED])
def test_a_file_that_another_guest_has_is_refused_with_its_name(
    rig: Rig, running: bool, level: Level
) -> None:
    rig.world.guests[G2].foreign.add(f"{S1}/a")
    rig.world.guests[G2].running = running
    hands_off = level is Level.CONNECTED
    guest = "00000000-0000-4000-8000-000000000001" if hands_off else "g1"
    with pytest.raises(Refused, match=f"g2 has {S1}/a already"):
        rig.owner().attachments.attach(guest, connection(), level=level, hands_off=hands_off)
    assert rig.records.all() == []
    assert not rig.world.guests[GuestId("g1")].live


def test_a_dry_run_says_so(rig: Rig) -> None:
    rig.owner().attachments.attach("g1", connection("b"))  # the link is there
    rig.world.guests[G2].foreign.add(f"{S1}/a")
    with pytest.raises(Refused, match="g2 has"):
        rig.owner().attachments.attach("g1", connection(), dry_run=True)


@pytest.mark.parametrize(
    ("ours", "theirs", "fits"),
    [
        (WRITES, WRITES, False),
        (WRITES, READONLY, False),
        (READONLY, WRITES, False),
        (READONLY, READONLY, True),
        (SHARED, SHARED, True),
        (SHARED, WRITES, False),
        (WRITES, SHARED, False),
        (SHARED, READONLY, False),
    ],
)
def test_two_have_it_if_both_read_only_or_both_share(
    rig: Rig, ours: DiskOptions, theirs: DiskOptions, fits: bool
) -> None:
    use = Use(f"{S1}/a", "raw", theirs.readonly, theirs.shared)
    rig.world.guests[G2].foreign.add(use.path)
    rig.world.guests[G2].uses.add(use)
    if fits:
        rig.owner().attachments.attach("g1", connection(), options=ours)
        rig.check(
            {("a", "g2"): Level.ABSENT} | {(rig.records.all()[0].key.volume, "g1"): Level.ATTACHED}
        )
        return
    with pytest.raises(Refused, match="g2 has"):
        rig.owner().attachments.attach("g1", connection(), options=ours)


def test_a_guest_s_own_disk_without_our_mark_is_not_plugged_again(rig: Rig) -> None:
    use = Use(f"{S1}/a", "raw")
    rig.world.guests[GuestId("g1")].foreign.add(use.path)
    rig.world.guests[GuestId("g1")].uses.add(use)
    with pytest.raises(Refused, match="g1 has"):
        rig.owner().attachments.attach("g1", connection())


def test_what_nova_plugged_itself_is_no_clash(rig: Rig) -> None:
    id = "00000000-0000-4000-8000-000000000001"
    rig.owner().attachments.attach(id, connection(), level=Level.CONNECTED, hands_off=True)
    rig.world.guests[GuestId(id)] = rig.world.guests.pop(G2)
    rig.world.guests[GuestId(id)].foreign.add(f"{S1}/a")
    rig.owner().attachments.attach(id, connection(), level=Level.CONNECTED, hands_off=True)


def test_half_a_disk_is_healed(rig: Rig) -> None:
    rig.owner().attachments.attach("g1", connection())
    rig.world.guests[GuestId("g1")].defined.clear()
    assert rig.owner().attachments.sweep() == []


class Partly(ToyHypervisor):
    """It answers about each guest, and when it is *stuck* not about all."""

    stuck = False

    def find(self, guest: str) -> GuestName:
        return GuestName(GuestId(guest), guest)

    def survey(self) -> Sequence[Guest]:
        if self.stuck:
            raise Uncertain("a guest hangs")
        return super().survey()


def partly(rig: Rig) -> tuple[Partly, Moorline]:
    hypervisor = Partly(rig.world)
    backends = {"toy": ToyExports(rig.world)}
    reconciler = Reconciler(rig.records, backends, hypervisor, Locks(patience=1.0))
    return hypervisor, Moorline(rig.records, reconciler, hypervisor, environment=bare())


def test_guests_that_do_not_answer_have_what_they_had(rig: Rig) -> None:
    rig.world.guests[G2].foreign.add(f"{S1}/a")
    hypervisor, moorline = partly(rig)
    moorline.attachments.attach("g1", connection("b"))
    hypervisor.stuck = True
    row = moorline.attachments.attach("g1", connection("c"), timeout=0).view
    assert row.seen == "attached"
    with pytest.raises(Refused, match="g2 has"):
        moorline.attachments.attach("g1", connection("a"), timeout=0)


def test_guests_that_never_answered_may_have_anything(rig: Rig) -> None:
    hypervisor, moorline = partly(rig)
    hypervisor.stuck = True
    with pytest.raises(Uncertain):
        moorline.attachments.attach("g1", connection(), timeout=0)


# --- the same file by other names, on this host -------------------------------


class Here(Rig):
    """Files of this host, looked at by the real host."""

    def __init__(self, host: Host, *guests: str) -> None:
        super().__init__(*guests)
        self.host = host

    def reconciler(self) -> Reconciler:
        hypervisor, clashes = ToyHypervisor(self.world), FileClashes(self.host)
        backends: Mapping[str, Any] = {"local": LocalFile(self.host, state_dir=Path("/nowhere"))}
        locks = Locks(patience=1.0)
        return Reconciler(self.records, backends, hypervisor, locks, file_clashes=clashes)


@pytest.fixture
def here() -> Any:
    host = Linux(systemd=False)
    yield Here(host, "g1", "g2")
    host.close()


def hard(share: Path, image: Path) -> Path:
    os.link(image, share / "other")
    return share / "other"


def soft(share: Path, image: Path) -> Path:
    (share / "other").symlink_to(image)
    return share / "other"


@pytest.mark.parametrize("alias", [hard, soft])
@pytest.mark.parametrize("ours", [WRITES, READONLY])
def test_another_name_of_a_file_that_a_guest_has(
    here: Here, tmp_path: Path, alias: Callable[[Path, Path], Path], ours: DiskOptions
) -> None:
    image = make(tmp_path, "a", "raw")
    use = Use(str(alias(tmp_path, image)), "raw")
    here.world.guests[G2].foreign.add(use.path)
    here.world.guests[G2].uses.add(use)
    here.attachment("a", "g1", Level.CONNECTED)
    (row,) = here.records.all()
    row = replace(row, options=ours)
    file_clashes = FileClashes(here.host)
    everyone = file_clashes.look(here.reconciler().survey())
    with pytest.raises(Refused, match=f"g2 has {image} already, as {use.path}"):
        file_clashes.refuse_others(row, ImageFile(image, "raw"), everyone)


def test_a_hard_link_under_two_attachments(here: Here, tmp_path: Path) -> None:
    image = make(tmp_path, "a", "raw")
    here.owner().attachments.attach("g1", str(image), format="raw")
    other = hard(tmp_path, image)
    for _ in range(2):
        with pytest.raises(Refused, match="hard links"):
            here.owner().attachments.attach("g2", str(other), format="raw")
        assert len(here.records.all()) == 1  # nobody waits for the first to be detached


def test_an_attachment_whose_guest_has_it_not_yet(here: Here, tmp_path: Path) -> None:
    image = make(tmp_path, "a", "raw")
    here.owner().attachments.attach("g1", str(image), format="raw", level=Level.CONNECTED)
    here.attachment("a", "g2", Level.CONNECTED)
    row = next(row for row in here.records.all() if row.key.guest == G2)
    file_clashes = FileClashes(here.host)
    everyone = file_clashes.look(here.reconciler().survey())
    with pytest.raises(Refused, match=r"volume .* of g1 has"):
        file_clashes.refuse_others(row, ImageFile(hard(tmp_path, image), "raw"), everyone)


@pytest.mark.parametrize("depth", [1, 2])
def test_a_file_beneath_a_disk_of_another_guest(here: Here, tmp_path: Path, depth: int) -> None:
    image = make(tmp_path, "base", "qcow2")
    top = image.name
    for number in range(depth):
        overlay(tmp_path, f"top{number}", top)
        top = f"top{number}"
    use = Use(str(tmp_path / top), "qcow2")
    here.world.guests[G2].running = False
    here.world.guests[G2].foreign.add(use.path)
    here.world.guests[G2].uses.add(use)
    with pytest.raises(Refused, match="g2 has"):
        here.owner().attachments.attach("g1", str(image), format="qcow2")
    here.owner().attachments.attach(
        "g1", str(image), format="qcow2", options=READONLY
    )  # both only read it


def test_another_guest_s_disk_beneath_ours(here: Here, tmp_path: Path) -> None:
    base = make(tmp_path, "base", "raw")
    top = overlay(tmp_path, "top", "base", "raw")
    here.world.guests[G2].foreign.add(str(base))
    here.world.guests[G2].uses.add(Use(str(base), "raw"))
    with pytest.raises(Refused, match="g2 has"):
        here.owner().attachments.attach("g1", str(top), format="qcow2")


def test_a_base_that_both_only_read_is_no_clash(here: Here, tmp_path: Path) -> None:
    make(tmp_path, "base", "qcow2")
    tops = [str(overlay(tmp_path, name, "base")) for name in ("one", "two")]
    here.owner().attachments.attach("g1", tops[0], format="qcow2")
    here.owner().attachments.attach("g2", tops[1], format="qcow2")


def test_what_a_guest_wrote_into_a_raw_disk_names_nothing(here: Here, tmp_path: Path) -> None:
    """Else it could keep others from their files."""
    victim = make(tmp_path, "victim", "qcow2")
    forged = overlay(tmp_path, "forged", "victim")
    here.world.guests[G2].foreign.add(str(forged))
    here.world.guests[G2].uses.add(Use(str(forged), "raw"))
    here.owner().attachments.attach("g1", str(victim), format="qcow2")


@pytest.mark.parametrize("alias", [hard, soft])
def test_what_cannot_be_the_same_file_is_told_by_its_numbers_alone(
    here: Here, tmp_path: Path, alias: Callable[[Path, Path], Path]
) -> None:
    """Where each directory of a path is asked, as for its own name, very many disks are a wait."""
    base = make(tmp_path, "base", "qcow2")
    overlay(tmp_path, "top", "base")
    other = make(tmp_path, "another", "raw")
    named = alias(tmp_path, base)
    (mine,) = here.host.files(tmp_path, [(str(base), "qcow2")])
    assert not isinstance(mine, OSError)
    asked = [str(named), str(tmp_path / "top"), str(other), str(tmp_path / "none")]
    looks = here.host.files(tmp_path, [(path, "qcow2") for path in asked], [mine[0].inode])
    same, above, unlike, none = looks
    assert isinstance(none, FileNotFoundError)
    assert isinstance(same, list)
    assert isinstance(above, list)
    assert isinstance(unlike, list)
    found = here.host.files(tmp_path, [(path, "qcow2") for path in asked[:1]])[0]
    assert same == found, "what may be the same is told in full"
    assert above[1:] == mine, "and so is what lies beneath another"
    assert (unlike[0].path, unlike[0].filesystem) == (str(other), 0)


# --- two mounts, and shares that do not answer ----------------------------------


class Asked(ToyHost):
    """Notes which mounts are asked for files: one that hangs would be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Path] = []

    def files(self, share: Path, images: Any, like: Any = None, *, first: bool = False) -> Any:
        self.asked.append(share)
        return super().files(share, images, like, first=first)


class Two:
    """Two mounts of a toy host, and a guest that has a file on the second."""

    def __init__(self, rig: Rig, first: tuple[str, str], second: tuple[str, str]) -> None:
        self.host = Asked()
        files = frozenset({"disk"})
        self.host.mount(first[1], "/m/one", first[0], ToyShare(files=files))
        self.host.mount(second[1], "/m/two", second[0], ToyShare(files=files))
        use = Use("/m/two/disk", "raw")
        rig.world.guests[G2].foreign.add(use.path)
        rig.world.guests[G2].uses.add(use)
        rig.attachment("a", "g1", Level.CONNECTED)
        self.rig = rig

    def refuse_others(self) -> None:
        (row,) = self.rig.records.all()
        image = ImageFile(Path("/m/one/disk"), "raw")
        file_clashes = FileClashes(self.host)
        everyone = file_clashes.look(self.rig.reconciler().survey())
        file_clashes.refuse_others(row, image, everyone)


QUOBYTE = "fuse.quobyte"
SAME = [
    ((QUOBYTE, "quobyte@a:7861/vol"), (QUOBYTE, "quobyte@192.0.2.1:7861/vol")),
    (("nfs", "nas:/v"), ("nfs4", "192.0.2.1:/v")),
    (("fuse.glusterfs", "a:/vol"), ("fuse.glusterfs", "b:vol")),
    (("fuse", "something"), ("fuse", "something")),
]
OTHERS = [
    ((QUOBYTE, "quobyte@a:7861/vol"), (QUOBYTE, "quobyte@a:7861/other")),
    (("nfs", "nas:/v"), ("cifs", "//nas/v")),
    (("nfs", "nas:/v"), ("nfs", "nas:/w")),
    ((QUOBYTE, "quobyte@a:7861/vol"), ("lustre", "mds@tcp:/vol")),
    ((QUOBYTE, "quobyte@a:7861/vol"), ("of.a.later.vendor", "vol")),
]


@pytest.mark.parametrize(("first", "second"), SAME)
def test_two_mounts_that_show_the_same(rig: Rig, first: Any, second: Any) -> None:
    two = Two(rig, first, second)
    with pytest.raises(Refused, match="g2 has /m/one/disk already, as /m/two/disk"):
        two.refuse_others()
    two.host.share("/m/two").hangs = True
    with pytest.raises(Uncertain, match="cannot be told whether g2 has"):
        two.refuse_others()


@pytest.mark.parametrize(("first", "second"), OTHERS)
def test_another_share_is_another_file_and_holds_nobody_up(
    rig: Rig, first: Any, second: Any
) -> None:
    two = Two(rig, first, second)
    two.refuse_others()
    two.host.share("/m/two").hangs = True
    two.refuse_others()
    assert Path("/m/two") not in two.host.asked


def test_file_systems_are_told_apart_by_their_device_first(rig: Rig) -> None:
    """A copy of a file system has its names, its numbers and its id."""

    class Copied(ToyHost):
        def mounts(self) -> list[Mount]:
            devices = iter(("8:1", "8:2"))
            return [
                Mount(m.id, m.source, m.target, m.fstype, next(devices), m.shared)
                for m in self.table
            ]

        def files(self, share: Path, images: Any, like: Any = None, *, first: bool = False) -> Any:
            number = 1 if str(share) == "/m/one" else 2
            return [[FileId(path, os.makedev(8, number), 2)] for path, _ in images]

    two = Two(rig, ("ext4", "/dev/sda1"), ("ext4", "/dev/sda2"))
    two.host = Copied(table=two.host.table, shares=two.host.shares)
    two.refuse_others()


def test_no_look_at_all_is_no_answer(rig: Rig) -> None:
    rig.owner().attachments.attach("g1", connection("b"))
    rig.world.blind = True
    with pytest.raises((Unavailable, Uncertain)):
        rig.owner().attachments.attach("g1", connection(), timeout=0)
