"""Two states of one host, whose owners give one file to two guests at one moment."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from moorline.api import Moorline
from moorline.backends.local import LocalFile
from moorline.core.file_clashes import FileClashes
from moorline.core.file_locking import FileLocking
from moorline.core.locks import Locks
from moorline.core.reconciler import Reconciler
from moorline.core.records import Records
from moorline.errors import Failed, MoorlineError, Refused, Unavailable, Uncertain
from moorline.host.file_lock import FileLock
from moorline.host.linux import Linux
from moorline.model import DiskOptions, DiskSource, GuestId, Level, VolumeId
from moorline.ports import FileId
from moorline.secret import Secret
from moorline.stores.codec import Codec
from moorline.testing.toys import MemoryStore, ToyGuest, ToyHypervisor, ToyWorld
from tests.support.disk_images import make, overlay
from tests.support.environment import bare

_CODEC = Codec(Secret(b"k" * 32))
GIVES = "is giving .* to a guest"
INSTANCE = "00000000-0000-4000-8000-000000000001"


class Slow(ToyHypervisor):
    """A plug takes until it is told to go on; *lost*: what became of it is not told."""

    def __init__(self, world: ToyWorld) -> None:
        super().__init__(world)
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()
        self.lost = False
        self.busy: GuestId | None = None

    def settled(self, guest: GuestId, seconds: float) -> None:
        if guest == self.busy:
            raise Unavailable(f"{guest} is being changed")

    def attach(
        self, guest: GuestId, volume: VolumeId, source: DiskSource, options: DiskOptions
    ) -> None:
        self.begun.set()
        assert self.go_on.wait(20)
        if self.lost:
            raise Uncertain("it did not answer")
        super().attach(guest, volume, source, options)


class State:
    """A state directory and its owner, on a host that others are on as well."""

    def __init__(
        self, world: ToyWorld, host: Linux, locks: Path, lock: Callable[[Path], FileLock] = FileLock
    ) -> None:
        self.hypervisor = Slow(world)
        records = Records(MemoryStore(world.faults), _CODEC, "h1")
        backends: Mapping[str, Any] = {"local": LocalFile(host, state_dir=Path("/nowhere"))}
        reconciler = Reconciler(
            records,
            backends,
            self.hypervisor,
            Locks(patience=1.0),
            file_clashes=FileClashes(host),
            turns=FileLocking(host, lambda: lock(locks), self.hypervisor.settled),
        )
        self.owner = Moorline(records, reconciler, self.hypervisor, environment=bare())

    def attach(self, guest: str, image: Path, **how: Any) -> str:
        form = "qcow2" if image.suffix == ".qcow2" else "raw"
        how = {"timeout": 0, **how}
        return self.owner.attachments.attach(guest, str(image), format=form, **how).view.seen


@pytest.fixture
def states(tmp_path: Path) -> Iterator[tuple[State, State]]:
    world = ToyWorld()
    guests = ["g1", "g2", INSTANCE]
    world.guests = {GuestId(name): ToyGuest(name) for name in guests}
    (tmp_path / "locks").mkdir()
    host = Linux(systemd=False)
    one, two = (State(world, host, tmp_path / "locks") for _ in range(2))
    yield one, two
    one.hypervisor.go_on.set()
    host.close()


def begin(state: State, guest: str, image: Path, **how: Any) -> threading.Thread:
    """Have *state* plug *image*, and come to where the hypervisor is at it."""
    state.hypervisor.go_on.clear()
    state.hypervisor.begun.clear()
    thread = threading.Thread(target=lambda: state.attach(guest, image, timeout=20, **how))
    thread.start()
    assert state.hypervisor.begun.wait(10)
    return thread


def end(state: State, thread: threading.Thread) -> None:
    state.hypervisor.go_on.set()
    thread.join()


def test_who_comes_second_waits_and_is_refused(states: tuple[State, State], tmp_path: Path) -> None:
    one, two = states
    image, other = make(tmp_path, "a", "raw"), make(tmp_path, "b", "raw")
    plug = begin(one, "g1", image)
    with pytest.raises(Failed, match=rf"\({os.getpid()}\) is giving {image} to a guest"):
        two.attach("g2", image)
    assert two.attach("g2", other) == "attached"  # nobody waits for what is another file
    end(one, plug)
    with pytest.raises(Refused, match="g1 has"):
        two.attach("g2", image)


@pytest.mark.parametrize("below_first", [True, False])
def test_a_file_beneath_is_one_as_well(
    states: tuple[State, State], tmp_path: Path, below_first: bool
) -> None:
    one, two = states
    base = make(tmp_path, "base.qcow2", "qcow2")
    tops = [overlay(tmp_path, f"{name}.qcow2", base.name) for name in "ab"]
    plug = begin(one, "g1", base if below_first else tops[0])
    if not below_first:
        assert two.attach("g2", tops[1]) == "attached"  # both only read what lies beneath
    with pytest.raises(Failed, match=GIVES):
        two.attach("g2", tops[1] if below_first else base)
    end(one, plug)


def test_two_that_only_read_do_not_wait(states: tuple[State, State], tmp_path: Path) -> None:
    one, two = states
    image = make(tmp_path, "a", "raw")
    plug = begin(one, "g1", image, options=DiskOptions(readonly=True))
    assert two.attach("g2", image, options=DiskOptions(readonly=True)) == "attached"
    end(one, plug)


def test_what_another_plugs_himself_waits_too(states: tuple[State, State], tmp_path: Path) -> None:
    """Nova is told that it may plug a volume, while somebody else plugs it."""
    one, two = states
    image = make(tmp_path, "a", "raw")
    plug = begin(one, "g1", image)
    threading.Timer(0.3, one.hypervisor.go_on.set).start()
    with pytest.raises(Refused, match="g1 has"):
        two.attach(INSTANCE, image, level=Level.CONNECTED, hands_off=True)
    end(one, plug)


@pytest.mark.parametrize("comes", [True, False])
def test_what_may_still_come_is_asked_for(
    states: tuple[State, State], tmp_path: Path, comes: bool
) -> None:
    one, two = states
    image = make(tmp_path, "a", "raw")
    one.hypervisor.lost = True
    with pytest.raises(Uncertain):
        one.attach("g1", image)
    two.hypervisor.busy = GuestId("g1")
    with pytest.raises(Failed, match="g1 is being changed"):
        two.attach("g2", image)
    assert two.attach("g2", make(tmp_path, "b", "raw")) == "attached"  # that guest is not asked
    two.hypervisor.busy = None
    if comes:
        one.hypervisor.lost = False
        assert one.attach("g1", image) == "attached"
        with pytest.raises(Refused, match="g1 has"):
            two.attach("g2", image)
    else:
        assert two.attach("g2", image) == "attached"
    assert sorted(path.name for path in (tmp_path / "locks").iterdir()) == ["files.lock"]


def test_what_is_compared_is_what_is_locked(tmp_path: Path) -> None:
    """A file that replaces it while somebody else is waited for is not the one that was locked."""
    image = make(tmp_path, "a", "raw")
    others = [make(tmp_path, "b", "raw")]

    class Replacing(FileLock):
        def take(self, files: Mapping[FileId, bool], patience: float) -> None:
            super().take(files, patience)
            for other in others:
                other.replace(image)
            others.clear()

    world = ToyWorld()
    world.guests = {GuestId("g1"): ToyGuest("g1")}
    (tmp_path / "locks").mkdir()
    host = Linux(systemd=False)
    try:
        state = State(world, host, tmp_path / "locks", Replacing)
        with pytest.raises(Failed, match=f"{image} was replaced while it was looked at"):
            state.attach("g1", image)
        assert state.attach("g1", image) == "attached"
    finally:
        host.close()


def test_what_may_still_come_is_not_detached(states: tuple[State, State], tmp_path: Path) -> None:
    """Who asked for it gave up; the guest does not have the disk yet, and may get it."""
    one, _ = states
    image = make(tmp_path, "a", "raw")
    one.hypervisor.lost = True
    with pytest.raises(Uncertain):
        one.attach("g1", image)
    one.hypervisor.lost, one.hypervisor.busy = False, GuestId("g1")
    detach = one.owner.attachments.detach
    with pytest.raises(Failed, match="g1 is being changed"):
        detach("g1", str(image), timeout=0)
    with pytest.raises(MoorlineError, match="g1 is being changed"):
        one.owner.attachments.forget(str(image))
    one.hypervisor.busy = None
    assert detach("g1", str(image), timeout=0)
    assert one.owner.attachments.list() == []
