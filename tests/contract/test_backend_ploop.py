"""ploop images on Virtuozzo Storage against the back end contract, and what is theirs alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest
from ploop_rig import FILES, PloopRig

from moorline.core.plan import Step, next_step
from moorline.errors import Failed, NotOurs, Refused, Uncertain
from moorline.model import (
    BlockDevice,
    Broken,
    Caching,
    Disk,
    DiskState,
    Foreign,
    Held,
    Level,
    Linked,
    Seen,
    Unknown,
    Unlinked,
)
from moorline.ports import Command, Output
from moorline.testing.contracts.backend import (
    BackendContract,
    BackendRig,
    connect,
    disconnect,
    look,
)
from moorline.testing.faults import Fault, Faults, Faulty, Killed
from moorline.testing.toy_host import ToyHost, ToyShare


@pytest.fixture
def ploop_rig(tmp_path: Path) -> PloopRig:
    return PloopRig(tmp_path)


class TestPloopOnAToyHost(BackendContract):
    @pytest.fixture
    def rig(self, ploop_rig: PloopRig) -> BackendRig:
        return ploop_rig

    def test_a_missing_volume_is_refused(self, rig: BackendRig) -> None:
        """There is no link without the image, so it is refused earlier than a file is."""
        assert isinstance(rig, PloopRig)
        missing = {**rig.good, "data": {**rig.good["data"], "name": "disk-9"}}
        with pytest.raises(Refused, match="no file disk-9"):
            connect(rig, missing)
        disconnect(rig, missing)
        assert rig.world() == ([], [], {}, {})


def test_the_guest_gets_a_device_by_a_name_that_lasts(ploop_rig: PloopRig) -> None:
    rig = ploop_rig
    connect(rig, rig.good)
    before = look(rig, rig.good)
    assert before == Linked(BlockDevice(rig.name, Caching.WRITEBACK))
    rig.remove()
    connect(rig, rig.good)
    assert look(rig, rig.good) == before
    assert str(rig.name.readlink()) == f"/dev/{next(iter(rig.devices.values()))}"
    disconnect(rig, rig.good)


def test_the_device_goes_before_the_mount_and_the_mount_with_the_last_device(
    ploop_rig: PloopRig,
) -> None:
    rig = ploop_rig
    for each in (rig.good, rig.neighbour):
        connect(rig, each)
    assert len(rig.host.table) == 1
    assert look(rig, rig.good) != look(rig, rig.neighbour)
    rig.host.ran.clear()
    disconnect(rig, rig.good)
    assert rig.verbs() == ["ploop umount"]
    assert isinstance(look(rig, rig.neighbour), Linked)
    disconnect(rig, rig.neighbour)
    assert rig.verbs() == ["ploop umount", "ploop umount", "umount"]
    assert rig.world() == ([], [], {}, {})


def test_images_that_come_and_go_at_once_share_one_mount(ploop_rig: PloopRig) -> None:
    rig = ploop_rig

    def slow(host: ToyHost, command: Command) -> None:
        time.sleep(0.05)
        rig.mount(host, command)

    rig.host.programs["vstorage-mount"] = slow
    with ThreadPoolExecutor() as pool:
        for act, kind, mounts in ((connect, Linked, 1), (disconnect, Unlinked, 0)):
            list(pool.map(lambda each, act=act: act(rig, each), (rig.good, rig.neighbour)))
            assert len(rig.host.table) == mounts
            assert isinstance(look(rig, rig.good), kind)
            assert isinstance(look(rig, rig.neighbour), kind)
    assert rig.verbs().count("vstorage-mount") == 1


def test_a_device_that_is_busy_keeps_its_name_and_its_mount(ploop_rig: PloopRig) -> None:
    rig = ploop_rig
    connect(rig, rig.good)
    before = rig.world()

    def busy(host: ToyHost, command: Command) -> Output | None:
        if command.argv[1] == "umount":
            raise Failed("busy")
        return rig.ploop(host, command)

    rig.host.programs["ploop"] = busy
    with pytest.raises(Failed, match="busy"):
        disconnect(rig, rig.good)
    assert rig.world() == before
    assert isinstance(look(rig, rig.good), Linked)


def test_where_ploop_is_not_installed_it_is_refused_and_nothing_changes(
    ploop_rig: PloopRig,
) -> None:
    rig = ploop_rig
    del rig.host.programs["ploop"]
    before = rig.world()
    with pytest.raises(Refused, match="needs the command ploop"):
        connect(rig, rig.good)
    assert isinstance(look(rig, rig.good), Unlinked)
    disconnect(rig, rig.good)
    assert rig.world() == before
    assert rig.host.ran == []


def test_the_name_of_another_device_is_no_link(ploop_rig: PloopRig) -> None:
    """A number can be another image's after the device was taken away behind our back."""
    rig = ploop_rig
    connect(rig, rig.good)
    (descriptor,) = rig.devices
    rig.devices["/elsewhere/DiskDescriptor.xml"] = rig.devices.pop(descriptor)
    assert isinstance(look(rig, rig.good), Broken)
    connect(rig, rig.good)
    assert look(rig, rig.good) == Linked(BlockDevice(rig.name, Caching.WRITEBACK))
    assert str(rig.name.readlink()) == f"/dev/{rig.devices[descriptor]}"
    disconnect(rig, rig.good)
    assert list(rig.devices) == ["/elsewhere/DiskDescriptor.xml"]


def test_a_device_without_its_mount_is_broken_and_goes(ploop_rig: PloopRig) -> None:
    rig = ploop_rig
    connect(rig, rig.good)
    rig.host.unmount(rig.at)
    assert isinstance(look(rig, rig.good), Broken)
    disconnect(rig, rig.good)
    assert rig.world() == ([], [], {}, {})


def test_a_dead_share_is_no_leave_to_take_a_device_from_a_guest(ploop_rig: PloopRig) -> None:
    """Its client is seen gone, as a file's would be; but no device is taken from a guest."""
    rig = ploop_rig
    for each in (rig.good, rig.neighbour):
        connect(rig, each)
    rig.kill()
    link = look(rig, rig.good)
    disk = Disk(DiskState.WHOLE, source=str(rig.name))
    assert next_step(Level.ATTACHED, Seen(link, disk, Held.HELD, ("web01",))) is Step.PARK
    assert next_step(Level.CONNECTED, Seen(link, held=Held.FREE)) is Step.DISCONNECT
    disconnect(rig, rig.neighbour)
    assert look(rig, rig.neighbour) == Unlinked(), (
        "nothing of it is left, and its attachment can go"
    )
    with pytest.raises(Failed, match="its client has ended"):
        connect(rig, rig.neighbour)
    assert len(rig.devices) == 1
    disconnect(rig, rig.good)
    assert rig.world() == ([], [], {}, {})
    connect(rig, rig.good)
    assert isinstance(look(rig, rig.good), Linked)


def test_the_mount_of_a_dead_share_without_devices_is_made_anew(ploop_rig: PloopRig) -> None:
    rig = ploop_rig
    connect(rig, rig.good)
    rig.devices.clear()
    rig.name.unlink()
    rig.kill()
    link = look(rig, rig.good)
    assert next_step(Level.CONNECTED, Seen(link)) is Step.DISCONNECT
    disconnect(rig, rig.good)
    assert rig.world() == ([], [], {}, {})


@pytest.mark.parametrize("again", [True, False], ids=["again", "opposite"])
@pytest.mark.parametrize("fault", Fault)
@pytest.mark.parametrize("first", [connect, disconnect])
def test_whatever_strikes_at_any_command_it_is_gone_over(
    ploop_rig: PloopRig, first: Callable[..., None], fault: Fault, again: bool
) -> None:
    rig = ploop_rig
    sound, faults = rig.backend, Faults()
    then = first if again else (disconnect if first is connect else connect)
    for at in count():
        rig.backend = sound
        (connect if first is disconnect else disconnect)(rig, rig.good)
        rig.backend = rig.make(Faulty(rig.host, faults, {"run"}))
        faults.plan((at, fault))
        with suppress(Killed, Failed, Uncertain):
            first(rig, rig.good)
        if not faults.struck:
            break
        faults.struck = 0
        rig.backend = sound
        then(rig, rig.good)
        if then is connect:
            assert isinstance(look(rig, rig.good), Linked)
        else:
            assert rig.world() == ([], [], {}, {})
    assert at > 3


@pytest.mark.parametrize("fault", [Fault.KILL_BEFORE, Fault.KILL_AFTER, Fault.FAIL])
def test_what_is_half_made_is_never_seen_as_nothing(ploop_rig: PloopRig, fault: Fault) -> None:
    """An attachment that goes is forgotten where there is nothing: what is there would leak."""
    rig, sound, faults = ploop_rig, ploop_rig.backend, Faults()
    seen = set()
    for at in count():
        rig.backend = rig.make(Faulty(rig.host, faults, {"run"}))
        faults.plan((at, fault))
        with suppress(Killed, Failed, Uncertain):
            connect(rig, rig.good)
        rig.backend = sound
        link = look(rig, rig.good)
        seen.add(type(link))
        if isinstance(link, Unlinked):
            assert (rig.host.table, rig.devices) == ([], {})
        disconnect(rig, rig.good)
        if not faults.struck:
            break
        faults.struck = 0
    assert seen == {Unlinked, Broken, Linked}


def test_a_mount_that_a_neighbour_needs_is_not_half_made(ploop_rig: PloopRig) -> None:
    rig = ploop_rig
    connect(rig, rig.neighbour)
    assert isinstance(look(rig, rig.good), Unlinked)
    with pytest.raises(Refused):
        connect(rig, {**rig.good, "data": {**rig.good["data"], "name": "disk-9"}})
    disconnect(rig, rig.neighbour)
    assert rig.world() == ([], [], {}, {})


def test_devices_that_nobody_attachments_are_found_and_cleared(ploop_rig: PloopRig) -> None:
    rig = ploop_rig
    connect(rig, rig.good)
    connect(rig, rig.neighbour)
    rig.devices["/elsewhere/DiskDescriptor.xml"] = "ploop77"  # somebody's own
    found = rig.backend.links()
    assert [each.ill for each in found] == [None, None]
    assert rig.backend.link_name(rig.c) in {each.link for each in found}
    for each in found:
        assert len(rig.host.table) == 1
        rig.backend.clear(each.link)
    assert rig.backend.links() == []
    assert list(rig.devices) == ["/elsewhere/DiskDescriptor.xml"]
    assert rig.world()[:3] == ([], [], {})  # type: ignore[index]
    with pytest.raises(Refused):
        rig.backend.clear(found[0].link)


def test_a_list_that_cannot_be_had_hides_no_mount(ploop_rig: PloopRig) -> None:
    rig = ploop_rig
    at = rig.base / "clu-0123456789abcdef"
    at.mkdir()
    rig.host.mount("vstorage://clu", str(at), "fuse.vstorage", ToyShare())

    def hung(host: object, command: object) -> None:
        raise Uncertain("no answer")

    rig.host.programs["ploop"] = hung
    assert [each.link for each in rig.backend.links()] == [str(at)]


def test_a_command_that_still_runs_is_waited_for(ploop_rig: PloopRig) -> None:
    rig = ploop_rig
    rig.host.holds.add(rig.name.with_name(f"{rig.name.name}.lock"))
    link = look(rig, rig.good)
    assert isinstance(link, Unknown)
    assert not link.hangs


def test_a_list_that_cannot_be_had_is_unknown(ploop_rig: PloopRig) -> None:
    def hung(host: object, command: object) -> None:
        raise Uncertain("no answer")

    connect(ploop_rig, ploop_rig.good)
    ploop_rig.host.programs["ploop"] = hung
    assert isinstance(look(ploop_rig, ploop_rig.good), Unknown)
    with pytest.raises(Uncertain):
        disconnect(ploop_rig, ploop_rig.good)
    assert len(ploop_rig.host.table) == 1


def test_on_a_mount_of_the_operators_only_the_device_is_ours(ploop_rig: PloopRig) -> None:
    rig = ploop_rig
    at = rig.base / "theirs"
    at.mkdir()
    rig.host.mount("vstorage://clu", str(at), "fuse.vstorage", ToyShare(files=FILES))
    name, rig.backend = rig.backend.link_name(rig.c), rig.make(given={"clu": at})
    assert rig.backend.link_name(rig.c) == name
    connect(rig, rig.good)
    assert list(rig.devices) == [f"{at}/disk-1/DiskDescriptor.xml"]
    assert look(rig, rig.good) == Linked(BlockDevice(rig.name, Caching.WRITEBACK))
    disconnect(rig, rig.good)
    assert (rig.devices, [mount.target for mount in rig.host.table]) == ({}, [str(at)])
    assert rig.verbs() == ["ploop mount", "ploop umount"]


def test_a_foreign_mount_is_left_alone(ploop_rig: PloopRig) -> None:
    rig = ploop_rig
    rig.host.mount("tmpfs", rig.at, "tmpfs", ToyShare())
    assert isinstance(look(rig, rig.good), Foreign)
    for act in (connect, disconnect):
        with pytest.raises(NotOurs):
            act(rig, rig.good)
    assert len(rig.host.table) == 1
