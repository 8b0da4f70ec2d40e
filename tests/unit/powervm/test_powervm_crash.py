"""The owner dies, or its record fails, anywhere in an attach or a detach; several owners race."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lab.novalink import NovaLink as Lab
from lab.novalink.model import System, partition_uuid, preload
from lab.novalink.rig import image, powervm
from moorline.errors import MoorlineError
from moorline.hypervisors.powervm.hypervisor import PowerVM
from moorline.hypervisors.powervm.remembered_slots import MemorySlots, Slot, StoredSlots
from moorline.model import DiskOptions, DiskState, GuestId, ImageFile, VolumeId
from moorline.stores.sqlite import SqliteStore
from moorline.testing.faults import Fault, Faults, Killed

WEB, SERVER = GuestId(partition_uuid(100)), partition_uuid(1)
V1 = VolumeId("v1")
ROOT = Path(__file__).parents[3]


class FaultySlots(MemorySlots):
    """A record whose writes are effects."""

    def __init__(self) -> None:
        super().__init__()
        self.faults = Faults()

    def put(self, guest: GuestId, volume: VolumeId, slot: Slot) -> None:
        self.faults.effect(lambda: super(FaultySlots, self).put(guest, volume, slot))


def bring(vm: PowerVM, file: ImageFile, wanted: bool) -> None:
    """What the reconciler does: look, take the step, look again."""
    for _ in range(10):
        disk = vm.disks(WEB).get(V1)
        if wanted and (disk is None or disk.state is DiskState.PARTIAL):
            vm.attach(WEB, V1, file, DiskOptions())
        elif not wanted and disk is not None:
            vm.detach(WEB, V1)
        else:
            return
    raise AssertionError("it does not settle")


@pytest.mark.parametrize("tags", [True, False], ids=["tags", "no tags"])
def test_every_effect_of_a_history(tags: bool, tmp_path: Path, record_property) -> None:
    """Attach and detach, with each effect on record or server killed, failed or lost."""
    file = ImageFile(image(tmp_path, "f"), "raw")
    server_faults = ["", "drop", "drop_after", "error_after", "no_target", "no_disk", "conflict"]
    points = itertools.product(server_faults, Fault, range(4), [True, False])
    struck = 0
    with Lab(system=System(tags=tags)) as lab:
        for on_server, on_record, at, last in points:
            slots = FaultySlots()
            vm = powervm(lab, slots=slots)
            slots.faults.plan((at, on_record))
            if on_server:
                lab.faults.set(**{on_server: 1})
            for wanted in (True, False, last):
                try:
                    bring(vm, file, wanted)
                except (Killed, MoorlineError):
                    vm = PowerVM(vm._novalink, slots, vm._look, vm._measure)  # the next owner
            struck += slots.faults.struck
            slots.faults.plan()
            lab.faults.set(**dict.fromkeys(server_faults[1:], 0))
            bring(vm, file, last)
            mapped = [m for m in lab.system.made() if m.disk]
            assert len(mapped) == last, (on_server, on_record, at)
            if last:
                vm.disks(WEB)
                assert slots.of(WEB)[V1].lua == mapped[0].lua
            bring(vm, file, False)
            lab.system.unplug("web01")
            vm.close()
    record_property("crash_points", struck)
    assert struck > 100


CHILD = """
import os, signal, sys
from pathlib import Path
from moorline.hypervisors.powervm.hypervisor import *
from moorline.hypervisors.powervm.session import *
from moorline.hypervisors.powervm.remembered_slots import *
from moorline.model import DiskOptions, ImageFile
from moorline.secret import Secret
from moorline.stores.sqlite import SqliteStore

port, ca, db, guest, path, die = sys.argv[1:]

class Slots(StoredSlots):
    def put(self, guest, volume, slot):
        if slot.lua and die:  # the server answered, and this is the record of it
            os.kill(os.getpid(), signal.SIGKILL)
        super().put(guest, volume, slot)

logon = Logon("localhost", int(port), "neo", Secret("lab-secret"), Path(ca))
vm = PowerVM(NovaLink(logon), Slots(SqliteStore(Path(db)), "h1"), os.stat, os.path.getsize)
print("ready", flush=True)
vm.attach(guest, "v1", ImageFile(Path(path), "raw"), DiskOptions())
"""


def owner(lab: Lab, db: Path, path: Path, die: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-W", "ignore", "-c", CHILD]
    argv += [str(lab.port), str(lab.ca), str(db), WEB, str(path), die]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("tags", [True, False], ids=["tags", "no tags"])
def test_an_owner_killed_between_post_and_record(tags: bool, tmp_path: Path) -> None:
    file = ImageFile(image(tmp_path, "f"), "raw")
    with Lab(system=System(tags=tags)) as lab:
        with owner(lab, tmp_path / "db", file.path, "yes") as child:
            assert child.wait(30) == -signal.SIGKILL
        store = SqliteStore(tmp_path / "db")
        slots = StoredSlots(store, "h1")
        assert slots.of(WEB) == {V1: Slot(str(file.path))}  # asked for, its place not known
        vm = powervm(lab, slots=slots)
        assert vm.disks(WEB)[V1].state is DiskState.WHOLE
        assert slots.of(WEB) == {V1: Slot(str(file.path), 2, "0x8100000000000000", 10)}
        vm.attach(WEB, V1, file, DiskOptions())
        assert lab.service.updates() == 1
        vm.detach(WEB, V1)
        assert lab.system.made() == ()
        vm.close()
        store.close()


def test_an_owner_killed_while_its_post_is_under_way(tmp_path: Path) -> None:
    file = ImageFile(image(tmp_path, "f"), "raw")
    with Lab() as lab:
        lab.faults.set(slow_update=1.0)
        with owner(lab, tmp_path / "db", file.path, "") as child:
            end = time.monotonic() + 20
            while not lab.service.updating and time.monotonic() < end:
                time.sleep(0.01)
            child.kill()
        vm = powervm(lab)
        assert vm.disks(WEB) == {}  # the update has not come through yet
        lab.faults.set(slow_update=0.0)
        vm.attach(WEB, V1, file, DiskOptions())  # and when it does, it is too late: 412
        while lab.service.updating:
            time.sleep(0.01)
        assert len(lab.system.made()) == 1
        assert vm.disks(WEB)[V1].state is DiskState.WHOLE
        vm.close()


RACER = """
import json, sys
from pathlib import Path
from lab.novalink.rig import look, measure
from moorline.hypervisors.powervm.hypervisor import *
from moorline.hypervisors.powervm.session import *
from moorline.hypervisors.powervm.remembered_slots import *
from moorline.model import DiskOptions, ImageFile
from moorline.secret import Secret

port, ca, guest, *paths = sys.argv[1:]
logon = Logon("localhost", int(port), "neo", Secret("lab-secret"), Path(ca))
vm = PowerVM(NovaLink(logon), MemorySlots(), look, measure)
id = vm.find(guest).id
print("ready", flush=True)
sys.stdin.readline()
for path in paths:
    vm.attach(id, Path(path).name, ImageFile(Path(path), "raw"), DiskOptions())
vm.detach(id, Path(paths[0]).name)
print(json.dumps(sorted(vm.disks(id))))
vm.close()
"""


def test_four_owners_on_one_server_lose_nothing(tmp_path: Path, record_property) -> None:
    guests = [f"lpar{n}" for n in range(4)]
    files = {g: [str(image(tmp_path, f"{g}-{n}")) for n in range(5)] for g in guests}
    with Lab(guests) as lab:
        preload(lab.system, 100)
        before = lab.system.made()
        racers = [
            subprocess.Popen(
                [sys.executable, "-W", "ignore", "-c", RACER, str(lab.port), str(lab.ca), g]
                + files[g],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=ROOT,
            )
            for g in guests
        ]
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        done = {}
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        for g, racer in zip(guests, racers, strict=True):
            done[g] = json.loads(racer.communicate(timeout=120)[0])
            assert racer.returncode == 0
        for g in guests:
            assert done[g] == [Path(path).name for path in files[g][1:]]
        after = lab.system.made()
        assert len(after) == 100 + 16
        assert set(before) <= set(after)
        assert len({(m.server_slot, m.lua) for m in after}) == 116
        conflicts = [status for _, _, status in lab.trace].count(412)
        record_property("conflicts", conflicts)
        assert conflicts > 0, "they did not race"


def test_threads_of_one_owner_share_the_session(tmp_path: Path) -> None:
    guests = [f"lpar{n}" for n in range(4)]
    with Lab(guests) as lab:
        vm = powervm(lab)
        failed: list[Exception] = []

        def work(guest: str) -> None:
            try:
                id = vm.find(guest).id
                for n in range(5):
                    file = ImageFile(image(tmp_path, f"{guest}-{n}"), "raw")
                    vm.attach(id, VolumeId(f"{guest}-{n}"), file, DiskOptions())
            except Exception as error:  # noqa: BLE001
                failed.append(error)

        threads = [threading.Thread(target=work, args=[guest]) for guest in guests]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
        assert len(lab.system.made()) == 20
        assert lab.service.logons == 1
        vm.close()
