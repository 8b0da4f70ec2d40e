"""However many attachments: one survey, one look at a share, one listing for each call."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from moorline.core.expect import Expect
from moorline.core.locks import Locks
from moorline.core.plan import Step
from moorline.core.reconciler import Reconciler
from moorline.errors import Busy, Refused
from moorline.model import Attachment, Guest, GuestId, Key, Level, Link, VolumeId
from moorline.secret import Secret
from moorline.testing.toys import BASE, ToyExport, ToyHypervisor
from moorline.testing.toys import ToyShare as ToyExports
from tests.support.care_rig import Scene, prepared
from tests.support.rig import Rig

ROWS = 200


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return prepared(tmp_path, monkeypatch)


def crowd(scene: Scene, want: Level = Level.ATTACHED) -> None:
    """Plug many volumes of one share into two guests, and attachment *want* for all of them."""
    link = scene.attach("a", "g1", Level.ATTACHED)
    (first,) = scene.records.all()
    for row in others_like(first):
        scene.records.put(replace(row, want=want))
        toy = scene.world.guests[row.key.guest]
        path = f"{link}/{row.connection.reveal()['data']['name']}"
        toy.live[row.key.volume] = toy.defined[row.key.volume] = path
    scene.records.put(replace(first, want=want))


def others_like(row: Attachment) -> list[Attachment]:
    """So many attachments of other files on the share of *row*."""
    made = []
    for n in range(1, ROWS):
        guest, volume = GuestId(f"g{n % 2 + 1}"), VolumeId(f"more-{n:03}")
        of = {"export": "reg/vol", "name": f"file-{n}", "format": "raw", "volume_id": volume}
        made.append(
            replace(
                row,
                key=Key(row.key.host, volume, guest),
                guest_name=guest,
                connection=Secret({"driver_volume_type": "quobyte", "data": of}),
                place=f"place-{n}",
                revision=0,
            )
        )
    return made


def fails(scene: Scene) -> None:
    """Its client lives, and every look at the share meets an error."""
    share = scene.host.share(scene.link())
    share.error, share.clients = errno.EIO, ("quobyte (7)",)


def counted(scene: Scene, call: Callable[[], object]) -> tuple[int, int, int]:
    """The surveys, the looks at shares, and the listings of what is listed most by *call*."""
    surveys, looks = scene.hypervisor.surveys, scene.host.looks
    scene.store.listings.clear()
    call()
    listed = max(scene.store.listings.values())
    return scene.hypervisor.surveys - surveys, scene.host.looks - looks, listed


COMMANDS: dict[str, Callable[[Scene], object]] = {
    "list": lambda scene: scene.moorline.attachments.list(),
    "show": lambda scene: scene.moorline.attachments.show("vol-a"),
    "explain": lambda scene: scene.moorline.maintenance.explain("vol-a"),
    "doctor": lambda scene: scene.moorline.maintenance.doctor(),
    "sweep": lambda scene: scene.moorline.attachments.sweep(),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_on_a_share_that_fails(scene: Scene, command: str) -> None:
    crowd(scene)
    fails(scene)
    assert counted(scene, lambda: COMMANDS[command](scene)) == (1, 1, 1)


@pytest.mark.parametrize("command", COMMANDS)
def test_where_all_is_as_wanted(scene: Scene, command: str) -> None:
    crowd(scene)
    assert counted(scene, lambda: COMMANDS[command](scene)) == (1, 1, 1)


@pytest.mark.parametrize("command", ["list", "show", "explain", "doctor"])
def test_where_all_is_to_go(scene: Scene, command: str) -> None:
    crowd(scene, Level.ABSENT)
    assert counted(scene, lambda: COMMANDS[command](scene)) == (1, 1, 1)


def test_an_attach_looks_once_for_who_else_has_its_file(scene: Scene) -> None:
    """Also where very many volumes of the share are no disks yet."""
    scene.world.guests[GuestId("g1")].running = False
    scene.attach("a", "g1")
    scene.attach("b", "g1")
    few = counted(scene, lambda: scene.attach("b", "g1", Level.ATTACHED))
    scene.moorline.attachments.detach("g1", "vol-b")
    scene.attach("b", "g1")
    for row in others_like(scene.rows("vol-a")[0]):
        scene.records.put(row)
    many = counted(scene, lambda: scene.attach("b", "g1", Level.ATTACHED))
    assert few[0] == many[0] == 1
    assert few == many


def test_the_volumes_of_a_guest_that_is_about_to_start_are_looked_at_once(scene: Scene) -> None:
    crowd(scene, Level.CONNECTED)
    looks = scene.host.looks
    assert scene.moorline.guests.unready("g1") == []
    assert scene.host.looks - looks == 1


def test_the_file_of_a_guest_that_is_about_to_start_is_looked_at_besides(scene: Scene) -> None:
    scene.attach("a", "g1", Level.ATTACHED)
    looks = scene.host.looks
    assert scene.moorline.guests.unready("g1") == []
    assert scene.host.looks - looks == 2


def test_what_waits_for_another_volume_is_looked_at_after_it(scene: Scene) -> None:
    scene.attach("a", "g1")
    scene.attach("b", "g2", Level.ATTACHED)
    g2 = scene.world.guests[GuestId("g2")]
    g2.running, g2.live = True, {}
    (row,) = scene.rows("vol-b")
    scene.records.put(replace(row, want=Level.ABSENT))
    share = scene.host.share(scene.link())
    share.error, share.clients = errno.EIO, None
    assert "who has it open: g2" in scene.moorline.attachments.show("vol-a")[0].next
    assert scene.moorline.attachments.sweep() == []
    assert scene.host.share(scene.link()).error == 0


def test_while_a_guest_keeps_a_disk_no_other_guest_is_looked_at(scene: Scene) -> None:
    """It is asked again and again."""
    scene.attach("a", "g1", Level.ATTACHED)
    (row,) = scene.rows("vol-a")
    row = scene.records.put(replace(row, want=Level.ABSENT))
    g1 = scene.world.guests[GuestId("g1")]
    g1.live, g1.deaf = dict(g1.defined), True
    g1.running = True
    surveys = scene.hypervisor.surveys
    for expect in (Expect.ANYTHING, Expect.NO_DISK_ANY_MORE, Expect.NO_LINK_ANY_MORE):
        assert scene.reconciler.advance(row.key, expect=expect).step is Step.DETACH
    g1.leaving[VolumeId("vol-a")] = 9
    done = scene.reconciler.advance(row.key)
    assert (done.step, done.reason) == (Step.WAIT, "the guest has not let go of the disk yet")
    assert scene.hypervisor.surveys == surveys


def test_a_detach_asks_who_needs_the_link_where_it_takes_it_away_alone(scene: Scene) -> None:
    """That is a look at all guests of the host."""
    for guest in scene.world.guests.values():
        guest.running = False
    scene.attach("a", "g1", Level.ATTACHED)
    scene.attach("b", "g2", Level.ATTACHED)
    detach = scene.moorline.attachments.detach
    assert counted(scene, lambda: detach("g2", "vol-b"))[0] == 0, "another keeps it"
    assert counted(scene, lambda: detach("g1", "vol-a"))[0] == 1
    assert not scene.host.table


def test_who_disconnects_looks_afresh_under_the_links_lock(scene: Scene) -> None:
    link = scene.attach()
    locked = []

    class Watched(ToyHypervisor):
        def survey(self) -> Sequence[Guest]:
            try:
                with scene.locks.hold(f"link {link}", 0.0):
                    locked.append(False)
            except Busy:
                locked.append(True)
            return super().survey()

    (row,) = scene.rows("vol-a")
    row = scene.records.put(replace(row, want=Level.ABSENT))
    hypervisor = Watched(scene.world)
    owner = Reconciler(scene.records, scene.backends, hypervisor, scene.locks)
    assert owner.advance(row.key).step is Step.DISCONNECT
    assert locked == [True], "and nothing that was seen before it took the lock counts"
    assert not scene.host.table


class Counting(ToyExports):
    """A back end that counts how often it looks at a link."""

    inspected = 0

    def inspect(self, c: ToyExport) -> Link:
        self.inspected += 1
        return super().inspect(c)


def test_an_attach_looks_at_a_link_once_however_many_volumes_want_it() -> None:
    """After a restart with a thousand attachments without disks it was a million looks."""
    rig = Rig("g1", "g2")
    for n in range(ROWS):
        rig.attachment(f"v{n}", f"g{n % 2 + 1}", Level.ATTACHED, share=f"s{n % 10}")
    for n in range(10):
        rig.world.mounts[str(BASE / f"s{n}")] = f"s{n}"
    backend = Counting(rig.world)
    owner = Reconciler(rig.records, {"toy": backend}, ToyHypervisor(rig.world), Locks())
    assert owner.advance(rig.records.all()[0].key).step is Step.ATTACH
    assert backend.inspected <= 10 + 1, "each share, and the volume's own"


@pytest.mark.parametrize("broken", [0, 1])
def test_a_volume_of_the_same_name_is_found_behind_one_that_fits_no_more(broken: int) -> None:
    """Of a link that is looked at once it is one that does not answer for the others."""
    rig = Rig("g1", "g2", "g3")
    rig.world.mounts[str(BASE / "s1")] = "s1"
    for volume, guest in (("a", "g1"), ("b", "g2"), ("c", "g3")):
        rig.attachment(volume, guest, Level.ATTACHED)
    first, *others = rig.records.all()
    same = {"driver_volume_type": "toy", "data": {"share": "s1", "name": "a"}}
    odd = {"driver_volume_type": "toy", "data": {"share": "", "name": "a"}}
    for n, row in enumerate(others):
        rig.records.put(replace(row, connection=Secret(odd if n == broken else same)))
    with pytest.raises(Refused, match="already"):
        rig.reconciler().advance(first.key)
