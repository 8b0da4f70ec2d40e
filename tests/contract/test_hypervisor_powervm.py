"""PowerVM against the hypervisor contract, with a NovaLink that keeps tags and without."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from lab.novalink import NovaLink
from lab.novalink.model import Disk, Mapping, System, partition_uuid
from lab.novalink.rig import DB, WEB, image, powervm
from moorline.hypervisors.powervm.remembered_slots import StoredSlots
from moorline.model import DiskSource, GuestId, ImageFile, PathSource
from moorline.testing.contracts.extending import ExtendingContract, ExtendingRig
from moorline.testing.toys import MemoryStore

SERVER = partition_uuid(1)


class PowerVMRig(ExtendingRig):
    def __init__(self, lab: NovaLink, directory: Path) -> None:
        self._lab = lab
        self._directory = directory
        self._numbers = count()
        self.hypervisor = powervm(lab, slots=StoredSlots(MemoryStore(), "h1"))
        lab.system.alter("db01", state="not activated", rmc="none")

    def running_guest(self) -> GuestId:
        return WEB

    def stopped_guest(self) -> GuestId:
        return DB

    def new_source(self) -> DiskSource:
        return ImageFile(image(self._directory, f"{next(self._numbers)}.raw"), "raw")

    def grow(self, source: PathSource) -> int:
        os.truncate(source.path, 3 << 20)
        return 3 << 20

    def foreign_disk(self, guest: GuestId) -> str:
        number = next(self._numbers)
        path = f"/srv/foreign-{number}.raw"
        system = self._lab.system
        disk = Disk(path, "", f"udid-{number}", "1.000000")
        client = system.partitions[guest]
        with system.lock:
            foreign = Mapping(guest, client.id, 50 + number, 900 + number, disk, "lun9")
            system.mappings[SERVER] += (foreign,)
            system.touch()
        return path


class TestPowerVM(ExtendingContract):
    tags = True

    @pytest.fixture
    def rig(self, tmp_path: Path) -> Iterator[PowerVMRig]:
        with NovaLink(system=System(tags=self.tags)) as lab:
            rig = PowerVMRig(lab, tmp_path)
            yield rig
            rig.hypervisor.close()


class TestPowerVMWithoutTags(TestPowerVM):
    tags = False
