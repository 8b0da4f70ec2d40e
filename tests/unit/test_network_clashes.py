"""A server's disk has one writer, whoever has it and as far as its name tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest

from moorline.api import Moorline
from moorline.core.file_checks import FileChecks
from moorline.core.file_clashes import FileClashes
from moorline.core.file_locking import FileLocking
from moorline.core.links import Links
from moorline.core.locks import Locks
from moorline.core.reconciler import Reconciler
from moorline.errors import Busy, Failed, Refused, Unavailable, Uncertain
from moorline.host.file_lock import FileLock
from moorline.model import (
    DiskOptions,
    Format,
    GuestId,
    Level,
    Link,
    Linked,
    LinkName,
    NetworkDisk,
    Use,
    VolumeId,
)
from moorline.testing.toys import SIZE, ToyHypervisor
from tests.support.environment import bare
from tests.support.rig import Rig

G2 = GuestId("g2")
READONLY, SHARED, WRITES = DiskOptions(readonly=True), DiskOptions(shared=True), DiskOptions()


@dataclass(frozen=True)
class Export:
    disk: NetworkDisk
    volume: VolumeId | None
    name: str = ""


class Exports:
    """A back end of disks that servers have."""

    kind: ClassVar[str] = "net"
    yields: ClassVar[frozenset[type]] = frozenset({NetworkDisk})
    options = ()
    away = False
    """Whether its servers answer nobody."""
    bytes = SIZE
    asked = 0
    """How often one was asked for a size."""

    def __init__(self, *opened: str) -> None:
        self.opened = opened

    def from_url(self, url: str, format: Format | None) -> Mapping[str, Any]:
        return connection(url)

    def parse(self, connection: Mapping[str, Any]) -> Export:
        data = connection["data"]
        return Export(NetworkDisk("nbd", data["name"], ("a:10809",)), VolumeId(data["volume_id"]))

    def link_name(self, c: Export) -> LinkName:
        return LinkName(f"/net/{c.disk.name}")

    def inspect(self, c: Export) -> Link:
        return Linked(c.disk, given=True)

    def verify(self, c: Export) -> NetworkDisk:
        return replace(c.disk, opened=self.opened, ids=self.ids(c))

    def ids(self, c: Export) -> frozenset[str]:
        """Those of the last word of its name are one disk."""
        if self.away:
            raise Uncertain("it does not answer")
        return frozenset({c.disk.name.split("-")[-1]} if "-" in c.disk.name else ())

    def size(self, c: Export) -> int:
        self.asked += 1
        if self.away:
            raise Uncertain("it does not answer")
        return self.bytes

    def connect(self, c: Export) -> None: ...

    def disconnect(self, c: Export) -> None: ...


def connection(name: str = "one", volume: str = "v1") -> dict[str, Any]:
    return {"driver_volume_type": "net", "data": {"name": name, "volume_id": volume}}


def owner(
    rig: Rig,
    turns: FileLocking | None = None,
    opened: Sequence[str] = (),
    exports: Exports | None = None,
) -> Moorline:
    """*opened*: who has it open, as the server tells."""
    hypervisor = ToyHypervisor(rig.world)
    backends = {"net": exports or Exports(*opened)}
    reconciler = Reconciler(rig.records, backends, hypervisor, Locks(patience=1.0), turns=turns)
    return Moorline(rig.records, reconciler, hypervisor, environment=bare())


def theirs(rig: Rig, name: str, options: DiskOptions = WRITES, guest: str = "g2") -> None:
    """A guest has an export that we gave it not."""
    use = Use(NetworkDisk("nbd", name, ("a:10809",)).path, "raw", options.readonly, options.shared)
    rig.world.guests[GuestId(guest)].foreign.add(use.path)
    rig.world.guests[GuestId(guest)].uses.add(use)


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize(("mine", "has"), [("one", "one"), ("one", ""), ("", "one"), ("", "")])
def test_an_export_that_a_stranger_has_is_refused(
    rig: Rig, running: bool, mine: str, has: str
) -> None:
    theirs(rig, has)
    rig.world.guests[G2].running = running
    with pytest.raises(Refused, match="g2 has nbd://a:10809/"):
        owner(rig).attachments.attach("g1", connection(mine))
    assert rig.records.all() == []
    assert not rig.world.guests[GuestId("g1")].live


def test_a_guest_is_not_given_twice_what_it_has_itself(rig: Rig) -> None:
    theirs(rig, "one", guest="g1")
    with pytest.raises(Refused, match="g1 has"):
        owner(rig).attachments.attach("g1", connection())


def test_another_export_of_the_server_is_another_disk(rig: Rig) -> None:
    theirs(rig, "other")
    owner(rig).attachments.attach("g1", connection())
    assert list(rig.world.guests[GuestId("g1")].live.values()) == ["nbd://a:10809/one"]


@pytest.mark.parametrize("options", [READONLY, SHARED])
def test_two_may_have_it_if_both_only_read_it_or_share_it(rig: Rig, options: DiskOptions) -> None:
    theirs(rig, "one", options)
    owner(rig).attachments.attach("g1", connection(), options=options)
    with pytest.raises(Refused, match=r"g[12] has nbd://a:10809/ already"):
        owner(rig).attachments.attach("g1", connection("", "v2"))


def test_one_that_is_wanted_elsewhere_counts_before_it_is_plugged(rig: Rig) -> None:
    owner(rig).attachments.attach("g2", connection("", "v2"), level=Level.CONNECTED)
    with pytest.raises(Refused, match="volume v2 of g2 has"):
        owner(rig).attachments.attach("g1", connection())


@pytest.mark.parametrize("options", [WRITES, READONLY])
def test_who_has_it_open_and_is_not_known_here_keeps_it(rig: Rig, options: DiskOptions) -> None:
    attachments = owner(rig, opened=["10.0.0.7"]).attachments
    with pytest.raises(Failed, match=r"somebody else has nbd://a:10809/one open: 10\.0\.0\.7"):
        attachments.attach("g1", connection(), options=options, timeout=0)
    assert not rig.world.guests[GuestId("g1")].live


def test_each_running_guest_that_has_it_is_one_of_those_who_have_it_open(rig: Rig) -> None:
    theirs(rig, "one", READONLY)
    with pytest.raises(Failed, match=r"10\.0\.0\.7, of whom 1 may be this host's guests"):
        owner(rig, opened=["10.0.0.5", "10.0.0.7"]).attachments.attach(
            "g1", connection(), options=READONLY, timeout=0
        )
    owner(rig, opened=["10.0.0.5"]).attachments.attach("g1", connection(), options=READONLY)
    assert rig.world.guests[GuestId("g1")].live


def test_a_stopped_guest_has_nothing_open(rig: Rig) -> None:
    theirs(rig, "one", READONLY)
    rig.world.guests[G2].running = False
    with pytest.raises(Failed, match="somebody else"):
        owner(rig, opened=["10.0.0.7"]).attachments.attach(
            "g1", connection(), options=READONLY, timeout=0
        )


def test_who_has_it_open_does_not_hide_behind_a_guest_that_will_have_it(rig: Rig) -> None:
    """Somebody took the disk away from what runs, and then another host's guest got it."""
    owner(rig).attachments.attach("g1", connection())
    rig.world.guests[GuestId("g1")].live.clear()
    with pytest.raises(Failed, match=r"somebody else has .* open: 10\.0\.0\.7 \("):
        owner(rig, opened=["10.0.0.7"]).attachments.attach("g1", connection(), timeout=0)
    assert not rig.world.guests[GuestId("g1")].live
    owner(rig).attachments.attach("g1", connection())
    assert rig.world.guests[GuestId("g1")].live


def test_a_guest_that_starts_waits_for_who_has_its_disk_open(rig: Rig) -> None:
    """The hook asks no guest: this one does not run, so whoever it is, it is somebody else."""
    owner(rig).attachments.attach("g1", connection())
    guests = owner(rig, opened=["10.0.0.7"]).guests
    assert guests.unready("g1") == ["v1"]
    with pytest.raises(Failed, match=r"somebody else has volume v1 open: 10\.0\.0\.7"):
        guests.ready("g1", timeout=0)
    assert owner(rig).guests.unready("g1") == []
    owner(rig).guests.ready("g1", timeout=0)
    owner(rig).attachments.attach("g2", connection("two", "v2"), options=SHARED)
    assert owner(rig, opened=["10.0.0.7"]).guests.unready("g2") == []


def test_what_is_reserved_is_waited_for(rig: Rig) -> None:
    """But by a guest that has it as a LUN, and reserves it itself."""

    class Reserved(Exports):
        def verify(self, c: Export) -> NetworkDisk:
            return replace(super().verify(c), reserved="it is reserved")

    with pytest.raises(Failed, match="it is reserved"):
        owner(rig, exports=Reserved()).attachments.attach("g1", connection(), timeout=0)
    (row,) = rig.records.all()
    checks = FileChecks(Links({"net": Reserved()}), FileClashes(), FileLocking(), NotImplemented)
    with pytest.raises(Failed, match="it is reserved"):
        checks.demand_opening(row)
    lun = replace(row, options=DiskOptions(device="lun"))
    assert checks.demand_opening(lun)


def test_what_is_shared_may_be_open_anywhere(rig: Rig) -> None:
    owner(rig, opened=["10.0.0.7"]).attachments.attach("g1", connection(), options=SHARED)
    assert rig.world.guests[GuestId("g1")].live


def test_what_was_attached_is_as_it_should_be_and_goes(rig: Rig) -> None:
    owner(rig).attachments.attach("g1", connection())
    (view,) = owner(rig).attachments.list()
    assert (view.seen, view.next) == ("attached", "nothing")
    assert view.source is not None
    assert "login" not in view.source
    with pytest.raises(Failed, match="has not let go"):
        owner(rig).attachments.detach("g1", "v1", timeout=0)
    rig.world.tick()
    rig.world.tick()
    owner(rig).attachments.detach("g1", "v1")
    assert rig.records.all() == []
    assert not rig.world.guests[GuestId("g1")].live


def test_a_nameless_export_waits_for_whoever_is_given_another_of_its_server(
    rig: Rig, tmp_path: Any
) -> None:
    turns = FileLocking(locks=lambda: FileLock(tmp_path))
    owner(rig).attachments.attach("g1", connection(), level=Level.CONNECTED)
    (mine,) = rig.records.all()
    one, other, nameless = (NetworkDisk("nbd", n, ("a:10809",)) for n in ("one", "other", ""))
    with turns.turn(mine, one), turns.turn(mine, other):
        for taken in (one, nameless):
            with pytest.raises(Busy), turns.turn(mine, taken, 0):
                pass


def test_one_disk_by_two_names_has_one_writer(rig: Rig) -> None:
    owner(rig).attachments.attach("g2", connection("a-naa1", "v2"))
    rig.world.guests[G2].running = False
    with pytest.raises(Refused, match=r"g2 has .*a-naa1"):
        owner(rig).attachments.attach("g1", connection("b-naa1"))
    assert not rig.world.guests[GuestId("g1")].live
    owner(rig).attachments.attach("g1", connection("b-naa2", "v3"))
    owner(rig).attachments.attach("g1", connection("plain", "v4"))


@pytest.mark.parametrize("options", [READONLY, SHARED])
def test_one_disk_by_two_names_may_be_shared(rig: Rig, options: DiskOptions) -> None:
    owner(rig).attachments.attach("g2", connection("a-naa1", "v2"), options=options)
    owner(rig).attachments.attach("g1", connection("b-naa1"), options=options)


def test_what_another_server_does_not_tell_may_be_the_same(rig: Rig) -> None:
    class Half(Exports):
        """The server of a-… does not answer any more."""

        def ids(self, c: Export) -> frozenset[str]:
            self.away = c.disk.name.startswith("a-")
            return super().ids(c)

    owner(rig).attachments.attach("g2", connection("a-naa1", "v2"))
    with pytest.raises(Uncertain, match="it cannot be told whether g2 has the same disk"):
        owner(rig, exports=Half()).attachments.attach("g1", connection("b-naa2"), timeout=0)
    assert not rig.world.guests[GuestId("g1")].live
    owner(rig, exports=Half()).attachments.attach("g1", connection("plain", "v3"))


def test_one_disk_by_two_names_is_given_to_one_at_a_time(rig: Rig, tmp_path: Any) -> None:
    turns = FileLocking(locks=lambda: FileLock(tmp_path))
    owner(rig).attachments.attach("g1", connection(), level=Level.CONNECTED)
    (mine,) = rig.records.all()
    one, other = (
        NetworkDisk("nbd", n, ("a:10809",), ids=frozenset({"naa1"})) for n in ("one", "other")
    )
    with turns.turn(mine, one), pytest.raises(Busy), turns.turn(mine, other, 0):
        pass


def test_a_guest_is_shown_what_its_server_has(rig: Rig) -> None:
    exports = Exports()
    attachments = owner(rig, exports=exports).attachments
    attachments.attach("g1", connection())
    exports.bytes = 3 << 20
    with pytest.raises(Refused, match="no guest sees just"):
        attachments.extend("g1", "v1", 2 << 20)
    assert attachments.extend("g1", "v1", dry_run=True).size == 3 << 20
    assert rig.world.guests[GuestId("g1")].told == {}
    done = attachments.extend("g1", "v1")
    assert (done.steps, done.before, done.size) == (["extend"], SIZE, 3 << 20)
    assert rig.world.guests[GuestId("g1")].told == {"v1": 3 << 20}
    assert attachments.extend("g1", "v1").steps == []
    exports.away = True
    with pytest.raises(Unavailable, match="does not answer"):
        attachments.extend("g1", "v1", timeout=0)


def test_sizes_are_their_servers_and_a_silent_one_is_asked_once(rig: Rig) -> None:
    exports = Exports()
    for number in (1, 2):
        owner(rig).attachments.attach("g1", connection(f"n{number}", f"v{number}"))
    moorline = owner(rig, exports=exports)
    assert [view.size for view in moorline.attachments.list()] == [None, None]
    assert exports.asked == 0
    assert [view.size for view in moorline.attachments.list(sizes=True)] == [1 << 20] * 2
    assert moorline.attachments.show("v1")[0].size == 1 << 20
    exports.away, exports.asked = True, 0
    assert [view.size for view in moorline.attachments.list(sizes=True)] == [None, None]
    assert exports.asked == 1
