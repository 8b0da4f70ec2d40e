"""Every option of a disk: typed, declared, sent, recorded, plugged and read back; or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import click
import pytest

from moorline.cli import declared
from moorline.cli.typed_disk_options import asked, disk_options
from moorline.disk_options import BY_NAME, RATES, Kind, validate
from moorline.errors import Refused
from moorline.hypervisors.libvirt.disk_options_xml import options_of, refuse_misplaced
from moorline.hypervisors.libvirt.disk_xml import bus_of, disk_xml
from moorline.hypervisors.powervm.hypervisor import _file as powervm_takes
from moorline.hypervisors.vsphere.disk_checks import check as vsphere_takes
from moorline.local_api import json_types
from moorline.model import BlockDevice, DatastoreDisk, DiskOptions, ImageFile, VolumeId
from tests.support.rig import Rig, connection

SAID: dict[str, dict[str, Any]] = {
    "bus": {"bus": "usb"},
    "target": {"target": "vdb"},
    "device": {"device": "cdrom", "readonly": True},
    "reservations": {"reservations": True, "device": "lun"},
    "readonly": {"readonly": True},
    "shared": {"shared": True},
    "boot": {"boot": 3},
    "startup_policy": {"startup_policy": "optional"},
    "on_error": {"on_error": "stop"},
    "cache": {"cache": "none"},
    "io": {"io": "threads"},
    "discard": {"discard": "unmap"},
    "detect_zeroes": {"detect_zeroes": "on"},
    "queues": {"queues": 4},
    "iothread": {"iothread": 1},
    "logical_block_size": {"logical_block_size": 4096, "physical_block_size": 4096},
    "physical_block_size": {"physical_block_size": 4096},
    "rotation_rate": {"rotation_rate": 7200, "bus": "scsi"},
    "wwn": {"wwn": "5000c50015ea71aa", "bus": "scsi"},
    **{rate: {rate: 5} for rate in RATES},
    **{f"{rate}_max": {rate: 5, f"{rate}_max": 9, f"{rate}_max_length": 1} for rate in RATES},
    **{
        f"{rate}_max_length": {rate: 5, f"{rate}_max": 9, f"{rate}_max_length": 3} for rate in RATES
    },
    "size_iops_sec": {"size_iops_sec": 4096, "total_iops_sec": 5},
    "shares": {"shares": 500},
}
"""What says each of them, with what it needs."""
FORGOTTEN = {"cache", "io", "discard"}
"""Those of which an adopted disk tells nothing: they are as its storage needs them."""
TAKEN_BY = {"libvirt": {*BY_NAME} - {"shares"}, "PowerVM": {"shared"}}
TAKEN_BY["vSphere"] = {"shared", "total_iops_sec", "shares"}
every_option = pytest.mark.parametrize("name", SAID)


def test_none_is_left_out() -> None:
    assert {*SAID} == {*BY_NAME}


def words(said: dict[str, Any]) -> list[str]:
    """As they are typed."""
    typed = []
    for name, value in said.items():
        option = f"--{BY_NAME[name].typed}"
        typed += [option] if BY_NAME[name].kind is Kind.FLAG else [option, str(value)]
    return typed


@every_option
def test_it_is_typed_declared_sent_and_recorded_alike(name: str, tmp_path: Path) -> None:
    said = SAID[name]
    wanted = DiskOptions(**said)
    validate(wanted)

    @click.command()
    @disk_options()
    def attach(**typed: Any) -> DiskOptions:
        return asked(typed)

    assert attach.main(words(said), standalone_mode=False) == wanted
    entry = {"guest": "g1", "storage": "/srv/a.raw", "format": "raw"}
    keys = {BY_NAME[each].declared: value for each, value in said.items()}
    text = json.dumps({"attachments": [{**entry, **keys}]})
    (one,) = declared.read(tmp_path / "a.yaml", text).attachments
    assert one.options == wanted
    sent = json.loads(json.dumps(json_types.encode({"options": wanted}, brief=True)))
    assert sent["options"].keys() == said.keys()
    assert json_types.decode(DiskOptions, sent["options"]) == wanted
    rig = Rig("g1")
    try:
        rig.owner().attachments.attach("g1", connection(), options=wanted)
    except Refused as e:
        assert "toy" in str(e)  # noqa: PT017 - they have not all of them
    else:
        (row,) = rig.records.all()
        assert row.options == wanted


@every_option
def test_libvirts_disk_has_it_and_tells_it(name: str) -> None:
    wanted = DiskOptions(**SAID[name])
    bus = bus_of(wanted)
    if name not in TAKEN_BY["libvirt"]:
        with pytest.raises(Refused, match=f"no {name}"):
            refuse_misplaced(wanted, bus)
        return
    refuse_misplaced(wanted, bus)
    lun = wanted.device == "lun"
    source = BlockDevice(Path("/dev/x")) if lun else ImageFile(Path("/srv/a.raw"), "raw")
    where: dict[str, Any] = {"target": wanted.target or "vdx", "bus": bus, "place": None}
    made = disk_xml(VolumeId("one"), source, wanted, **where, qemu=7_002_000)
    plain = disk_xml(VolumeId("one"), source, DiskOptions(), **where, qemu=7_002_000)
    assert name in ("bus", "target") or made != plain
    told = options_of(ET.fromstring(made))
    assert getattr(told, name) == (getattr(wanted, name) if name not in FORGOTTEN else "")


@every_option
def test_powervm_and_vsphere_take_it_or_refuse_it_with_words(name: str) -> None:
    wanted = DiskOptions(**SAID[name])
    takes = {
        "PowerVM": lambda: powervm_takes(ImageFile(Path("/srv/a.raw"), "raw"), wanted),
        "vSphere": lambda: vsphere_takes(DatastoreDisk("ds1", "a/a.vmdk"), wanted),
    }
    for hypervisor, take in takes.items():
        if name in TAKEN_BY[hypervisor]:
            take()
            continue
        with pytest.raises(Refused) as refused:
            take()
        assert hypervisor in str(refused.value)
