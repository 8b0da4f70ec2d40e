"""The stand-in answers as real systems did, and the driver takes such answers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pypowervm
import pytest
from lxml import etree
from pypowervm import const
from pypowervm import exceptions as pvm
from pypowervm.wrappers.virtual_io_server import VIOS

from lab.novalink import NovaLink as Lab
from lab.novalink.model import FILEIO, Disk, Mapping, System, partition_uuid
from lab.novalink.rig import WEB, mapped, powervm
from moorline.errors import Failed, NotOurs, Unavailable, Uncertain
from moorline.hypervisors.powervm.hypervisor import PowerVM
from moorline.hypervisors.powervm.mappings import ScsiMapping, read
from moorline.hypervisors.powervm.remembered_slots import MemorySlots
from moorline.model import DiskOptions, ImageFile, Sizes, VolumeId

V1 = VolumeId("11111111-0000-4000-8000-000000000001")
PLAIN = DiskOptions()
CAPTURES = Path(pypowervm.__file__).parent / "tests" / "data"
"""Replies of real systems, which pypowervm has for its own tests."""
SINCE_THEN = {"VirtualDisk/Tag", "VirtualDisk/BackStoreType"}
"""What schemas that are younger than the captures added."""


def captured(name: str) -> Any:
    text = (CAPTURES / name).read_text()
    body = text[text.index("BODY{") + 5 : text.rindex("END OF SECTION")]
    return etree.fromstring(body.strip().encode())


def shape(element: Any) -> set[str]:
    """The elements below *element*, each with its parent, without their namespaces."""
    return {
        f"{etree.QName(e.getparent()).localname}/{etree.QName(e).localname}"
        for e in element.iterdescendants()
        if isinstance(e.tag, str)
    }


def shapes(tree: Any) -> set[frozenset[str]]:
    return {
        frozenset(shape(mapping) - SINCE_THEN)
        for mapping in tree.iter(f"{{{const.UOM_NS}}}VirtualSCSIMapping")
        if mapping.find(f"{{{const.UOM_NS}}}Storage") is not None
    }


def server(vm: PowerVM, **asked: Any) -> Any:
    """The management partition as NovaLink tells it."""
    return vm._novalink.ask("it", lambda a: VIOS.get(a, uuid=partition_uuid(1), **asked))


def test_files_are_mapped_as_on_a_real_system(vm: PowerVM) -> None:
    """A disk, a DVD, and a DVD whose client is gone."""
    ours = server(vm, xag=[const.XAG.VIO_SMAP])
    assert shapes(ours.element.element) == shapes(captured("fake_vios_hosting_vios_feed.txt"))


def test_who_names_no_group_gets_the_servers_defaults(vm: PowerVM) -> None:
    assert read(server(vm, xag=[]))
    assert not read(server(vm))


def test_an_error_is_as_captured_and_closes_the_connection(lab: Lab, vm: PowerVM) -> None:
    vm.survey()
    before = lab.service.connections
    with pytest.raises(pvm.HttpNotFound) as caught:
        vm._novalink._adapter_now().read("VirtualIOServer", root_id=partition_uuid(9))
    answer = caught.value.response
    there = captured("fake_httperror.txt")
    assert shape(etree.fromstring(answer.body)) == shape(there)
    assert answer.headers["connection"] == "Close"
    assert vm.survey()
    assert lab.service.connections == before + 1


@pytest.mark.parametrize("mib", [1, 128, 1024])
def test_sizes_are_read_from_capacities_without_needless_zeros(
    lab: Lab, vm: PowerVM, disk: ImageFile, mib: int
) -> None:
    os.truncate(disk.path, mib << 20)
    vm.attach(WEB, V1, disk, PLAIN)
    told = [m.gib for m in read(server(vm, xag=[const.XAG.VIO_SMAP])) if m.tag == V1]
    assert told == [{1: "0.000977", 128: "0.125", 1024: "1"}[mib]]
    assert vm.sizes(WEB, V1) == Sizes(guest=mib << 20, storage=mib << 20)


def test_a_busy_server_is_told_in_its_words_and_asked_again(
    lab: Lab, vm: PowerVM, disk: ImageFile
) -> None:
    vm.find("web01")
    lab.faults.set(busy=1)
    with pytest.raises(Unavailable, match="busy processing some other request"):
        vm.survey()
    assert vm.survey()
    vm.attach(WEB, V1, disk, PLAIN)
    os.truncate(disk.path, 3 << 20)
    lab.faults.set(busy=1)
    with pytest.raises(Unavailable, match="busy processing some other request"):
        vm.extend(WEB, V1, 3 << 20)
    vm.extend(WEB, V1, 3 << 20)
    assert vm.sizes(WEB, V1).guest == 3 << 20


def test_a_server_that_is_busy_when_it_is_changed_may_have_changed(
    lab: Lab, vm: PowerVM, disk: ImageFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so with the status of any fault of its own: only a look can tell."""
    apply = vm._novalink.change

    def busy(*given: Any) -> Any:
        what, uuid, edit = given

        def then(vios: Any) -> bool:
            lab.faults.set(busy=1)
            return bool(edit(vios))

        return apply(what, uuid, then)

    with monkeypatch.context() as patch:
        patch.setattr(vm._novalink, "change", busy)
        with pytest.raises(Uncertain, match=r"busy processing .* \(HTTP 500\)"):
            vm.attach(WEB, V1, disk, PLAIN)
    assert mapped(lab) == []
    vm.attach(WEB, V1, disk, PLAIN)
    assert len(mapped(lab)) == 1


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("job_exception", "PmcJobException: the disk is locked"),
        ("job_code", "RETURN_CODE -7"),
    ],
)
def test_a_rescan_that_failed_tells_why(
    lab: Lab, vm: PowerVM, disk: ImageFile, fault: str, why: str
) -> None:
    vm.attach(WEB, V1, disk, PLAIN)
    os.truncate(disk.path, 3 << 20)
    lab.faults.set(**{fault: 1})
    with pytest.raises(Failed) as failed:
        vm.extend(WEB, V1, 3 << 20)
    assert failed.value.message == f"volume {V1} is not extended: {why}"
    assert lab.service.jobs == {}


def dvd(path: Path) -> Mapping:
    """The file as somebody else shows it to web01."""
    return Mapping(WEB, 10, 20, 1020, Disk(str(path), "", "u9", "1"), "lun1", optical=True)


def test_a_dvd_of_the_volumes_file_is_not_the_volume(disk: ImageFile) -> None:
    with Lab(system=System(tags=False)) as lab:
        slots = MemorySlots()
        vm = powervm(lab, slots=slots)
        vm.attach(WEB, V1, disk, PLAIN)
        lab.system.unplug("web01")
        lab.system.mappings[partition_uuid(1)] += (dvd(disk.path),)
        (place,) = (m.place for m in found(vm) if m.path == str(disk.path))
        slots.put(WEB, V1, place)  # the server gave the place of the volume to the DVD
        lab.system.touch()
        assert V1 not in vm.disks(WEB)
        vm.detach(WEB, V1)
        assert len(lab.system.made()) == 1
        with pytest.raises(NotOurs, match="somebody else made"):
            vm.attach(WEB, V1, disk, PLAIN)
        vm.close()


def found(vm: PowerVM) -> list[ScsiMapping]:
    return read(server(vm, xag=[const.XAG.VIO_SMAP]))


def test_a_dvd_holds_its_file(vm: PowerVM) -> None:
    holders = [g.name for g in vm.survey() if f"{FILEIO}/dvd.iso" in g.paths]
    assert holders == ["vios1", "LPAR 77, which is gone"]
