"""Options of disks as libvirt and QEMU have them, of guests without a system."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from libvirt_rig import CONFIG, LIVE, loop_device, marked, small_xml, until
from scene import gone_at_the_end, small_guest, start_paused

from lab.command import Moorline
from lab.guest import Guest
from moorline.model import VolumeId

VOLUME = VolumeId("vol-options")
NAME = "small1"


@pytest.fixture
def running(libvirt_conn: Any, leftovers_check: None) -> Iterator[Any]:
    with small_guest(libvirt_conn, NAME, running=True) as domain:
        yield domain


@pytest.fixture
def files(lab: Path) -> Iterator[Path]:
    """Where disks can lie: not in pytest's directories, which QEMU's user could not reach."""
    with TemporaryDirectory(dir=lab, prefix="disks-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def image(files: Path, name: str = "a.raw") -> str:
    with (files / name).open("wb") as file:
        file.truncate(1 << 20)
    return str(files / name)


def attach(moorline: Moorline, files: Path, *words: str, code: int = 0) -> str:
    volume = ("--format", "raw", "--volume", VOLUME)
    return moorline("attach", NAME, image(files), *volume, *words, code=code).stderr


def disk(domain: Any, half: int) -> ET.Element:
    found = marked(domain, VOLUME, half)
    assert found is not None
    return found


def tuned(domain: Any, half: int) -> dict[str, int]:
    return {each.tag: int(each.text or 0) for each in disk(domain, half).iterfind("iotune/*")}


def qemu(command: str, **arguments: Any) -> Any:
    text = json.dumps({"execute": command, "arguments": arguments})
    words = ["virsh", "qemu-monitor-command", NAME, text]
    told = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    return json.loads(told)["return"]


def block() -> dict[str, Any]:
    """The disk as QEMU has it."""
    (found,) = (each for each in qemu("query-block") if f"ua-{VOLUME}" in each["qdev"])
    inserted: dict[str, Any] = found["inserted"]
    return inserted


def property_of(name: str) -> Any:
    (path,) = (each["qdev"] for each in qemu("query-block") if f"ua-{VOLUME}" in each["qdev"])
    return qemu("qom-get", path=path.removesuffix("/virtio-backend"), property=name)


def restart(domain: Any) -> None:
    domain.destroy()
    start_paused(domain)


def test_limits_are_cinders_then_anothers_and_are_set_back(
    moorline: Moorline, files: Path, running: Any
) -> None:
    data = {"path": image(files), "format": "raw", "volume_id": VOLUME}
    data["qos_specs"] = {"total_iops_sec": "500", "read_bytes_sec": 1 << 20}  # type: ignore[assignment]
    connection = files / "connection.json"
    connection.write_text(json.dumps({"driver_volume_type": "local", "data": data}))
    moorline("attach", NAME, "--connection", str(connection))
    for half in (LIVE, CONFIG):
        assert tuned(running, half) == {"total_iops_sec": 500, "read_bytes_sec": 1 << 20}
    assert (block()["iops"], block()["bps_rd"]) == (500, 1 << 20)

    words = ("--iops", "700", "--total-iops-sec-max", "900", "--read-bytes-sec", "0")
    done = moorline.json("set", NAME, VOLUME, *words)
    assert done["steps"] == ["limit"]
    wanted = {"total_iops_sec": 700, "total_iops_sec_max": 900, "total_iops_sec_max_length": 1}
    for half in (LIVE, CONFIG):
        assert tuned(running, half) == wanted
    assert (block()["iops"], block()["iops_max"], block()["bps_rd"]) == (700, 900, 0)
    assert moorline.json("set", NAME, VOLUME, *words)["steps"] == []
    refused = moorline("set", NAME, VOLUME, "--read-iops", "5", code=3).stderr
    assert "together with read_iops_sec" in refused

    target = disk(running, LIVE).find("target")
    assert target is not None
    for flags in (LIVE, CONFIG, LIVE | CONFIG):  # somebody else's hands
        running.setBlockIoTune(target.get("dev"), {"total_iops_sec": 100}, flags)
        (row,) = moorline.json("list")
        assert row["next"] == "limit"
        moorline("sweep")
        assert [tuned(running, half) for half in (LIVE, CONFIG)] == [wanted] * 2
        assert block()["iops"] == 700
    restart(running)
    assert (block()["iops"], block()["iops_max"]) == (700, 900)
    assert moorline.json("list")[0]["next"] == "nothing"
    moorline("set", NAME, VOLUME, "--iops", "0", "--total-iops-sec-max", "0")
    assert [tuned(running, half) for half in (LIVE, CONFIG)] == [{}, {}]
    assert (block()["iops"], block().get("iops_max", 0)) == (0, 0)


def test_a_stopped_guests_disk_is_limited_in_its_definition(
    moorline: Moorline, files: Path, stopped: Any
) -> None:
    attach(moorline, files, "--write-iops", "50")
    assert tuned(stopped, CONFIG) == {"write_iops_sec": 50}
    assert moorline.json("set", NAME, VOLUME, "--write-bytes-sec", "2M")["steps"] == ["limit"]
    start_paused(stopped)
    assert (block()["iops_wr"], block()["bps_wr"]) == (50, 2 << 20)


def test_what_a_virtio_disk_can_be(moorline: Moorline, files: Path, running: Any) -> None:
    words = "--cache writeback --io threads --discard unmap --detect-zeroes unmap --queues 2"
    sizes = "--logical-block-size 4096 --physical-block-size 8192 --iothread 1"
    assert "virsh iothreadadd" in attach(moorline, files, *words.split(), *sizes.split(), code=3)
    running.addIOThread(1, LIVE | CONFIG)
    attach(moorline, files, *words.split(), *sizes.split())
    driver = disk(running, LIVE).find("driver")
    assert driver is not None
    told = {"cache": "writeback", "io": "threads", "discard": "unmap", "detect_zeroes": "unmap"}
    assert {**told, "queues": "2", "iothread": "1"}.items() <= driver.attrib.items()
    for _ in range(2):
        assert block()["detect_zeroes"] == "unmap"
        assert block()["cache"] == {"writeback": True, "direct": False, "no-flush": False}
        assert property_of("num-queues") == 2
        assert property_of("iothread") == "/objects/iothread1"
        assert (property_of("logical_block_size"), property_of("physical_block_size")) == (
            4096,
            8192,
        )
        restart(running)
    (row,) = moorline.json("list")
    assert (row["next"], row["options"]["queues"]) == ("nothing", 2)


def test_what_a_scsi_disk_can_be_of_a_guest_without_a_controller(
    moorline: Moorline, files: Path, libvirt_conn: Any, leftovers_check: None
) -> None:
    xml = ET.fromstring(small_xml("q35", 3, ""))
    xml.find("name").text = NAME  # type: ignore[union-attr]
    domain = libvirt_conn.defineXML(ET.tostring(xml, encoding="unicode"))
    with gone_at_the_end(libvirt_conn, domain.UUIDString()):
        start_paused(domain)
        wwn = "5000c50015ea71aa"
        attach(moorline, files, *f"--bus scsi --rotation-rate 1 --wwn {wwn} --cache none".split())
        for half in (0, 2):
            devices = ET.fromstring(domain.XMLDesc(half)).find("devices")
            assert devices is not None
            models = [c.get("model") for c in devices.iterfind("controller[@type='scsi']")]
            assert models == ["virtio-scsi"]
        more = ("--bus", "scsi", "--format", "raw")
        moorline("attach", NAME, image(files, "b.raw"), *more)
        assert len(ET.fromstring(domain.XMLDesc()).findall("devices/controller[@type='scsi']")) == 1
        for _ in range(2):
            assert (property_of("rotation_rate"), property_of("wwn")) == (1, int(wwn, 16))
            assert block()["cache"]["direct"]
            restart(domain)


def test_sata_waits_for_a_stop_and_usb_for_a_controller(
    moorline: Moorline, files: Path, stopped: Any, libvirt_conn: Any
) -> None:
    attach(moorline, files, "--bus", "sata", "--rotation-rate", "5400", "--iops", "9")
    start_paused(stopped)
    assert (property_of("rotation_rate"), block()["iops"]) == (5400, 9)
    (row,) = moorline.json("list")
    assert (row["seen"], row["device"]) == ("attached", "sda")
    other = ("attach", NAME, image(files, "b.raw"), "--format", "raw", "--bus")
    assert "while it runs" in moorline(*other, "sata", code=3).stderr
    assert "no USB controller" in moorline(*other, "usb", code=3).stderr
    stopped.destroy()
    moorline("detach", NAME, VOLUME)
    xml = ET.fromstring(stopped.XMLDesc())
    usb = xml.find("devices/controller[@type='usb']")
    assert usb is not None
    usb.set("model", "qemu-xhci")
    libvirt_conn.defineXML(ET.tostring(xml, encoding="unicode"))
    start_paused(stopped)
    attach(moorline, files, "--bus", "usb", "--write-iops", "9")
    assert block()["iops_wr"] == 9
    restart(stopped)
    assert block()["iops_wr"] == 9


def test_a_disc_comes_and_goes_with_its_drive(
    moorline: Moorline, files: Path, guest: Guest
) -> None:
    words = ("--format", "raw", "--device", "cdrom", "--volume", VOLUME)
    disc = ("attach", guest.name, image(files), *words)
    assert "can only be read" in moorline(*disc, code=3).stderr
    refused = moorline(*disc, "--read-only", "--bus", "virtio", code=3).stderr
    assert "no cdrom on the bus virtio" in refused
    types = "for d in /sys/bus/scsi/devices/*:*:*:*; do echo $(cat $d/type $d/model); done"
    for name in ("a.raw", "b.raw"):  # another disc is another drive
        moorline("attach", guest.name, image(files, name), *words, "--read-only")
        for half in (LIVE, CONFIG):
            found = disk(guest.domain, half)
            assert (found.get("device"), attribute(found, "target", "bus")) == ("cdrom", "scsi")
            assert attribute(found, "source", "file") == str(files / name)
        until(lambda: "5 QEMU CD-ROM" in guest.agent.check(types))
        (row,) = moorline.json("list")
        assert (row["next"], row["options"]["device"]) == ("nothing", "cdrom")
        assert moorline.json("disks", guest.name)[0]["whose"] == "ours"
        if name == "a.raw":
            moorline("release", guest.name, VOLUME)
            moorline("adopt", guest.name, image(files), "--format", "raw")
            assert moorline.json("list")[0]["options"]["device"] == "cdrom"
        moorline("detach", guest.name, VOLUME)
        until(lambda: "5 QEMU CD-ROM" not in guest.agent.check(types))


def test_a_disc_that_a_guest_boots_from_is_in_a_drive_that_it_knows(
    moorline: Moorline, files: Path, stopped: Any, libvirt_conn: Any
) -> None:
    boots_by_device(libvirt_conn, stopped)
    words = "--device cdrom --read-only --bus sata --boot-order 1 --startup-policy optional"
    attach(moorline, files, *words.split())
    for _ in range(2):
        start_paused(stopped)
        (found,) = (each for each in qemu("query-block") if f"ua-{VOLUME}" in each["qdev"])
        assert (found["removable"], found["inserted"]["ro"]) == (True, True)
        assert property_of("bootindex") == 1
        stopped.destroy()
    moorline("detach", NAME, VOLUME)


def test_a_lun_is_defined_with_its_reservations(
    moorline: Moorline, stopped: Any, files: Path
) -> None:
    """The lab has no SCSI device that QEMU could open."""
    with loop_device(Path(image(files))) as device:
        it = (NAME, str(device), "--format", "raw", "--volume", VOLUME)
        words = ("attach", *it, "--device", "lun")
        assert "has no wwn" in moorline(*words, "--wwn", "5000c50015ea71aa", code=3).stderr
        assert "has no total-iops-sec" in moorline(*words, "--iops", "5", code=3).stderr
        assert "no lun on the bus virtio" in moorline(*words, "--bus", "virtio", code=3).stderr
        moorline(*words, "--reservations")
        found = disk(stopped, CONFIG)
        assert (found.get("device"), attribute(found, "target", "bus")) == ("lun", "scsi")
        assert attribute(found, "source/reservations", "managed") == "yes"
        (row,) = moorline.json("list")
        assert (row["seen"], row["next"]) == ("attached", "nothing")
        assert row["options"]["reservations"]
        moorline("release", NAME, VOLUME)
        moorline("adopt", *it)
        options = moorline.json("list")[0]["options"]
        assert (options["device"], options["reservations"]) == ("lun", True)
        moorline("detach", NAME, VOLUME)


def test_adopting_keeps_what_limits_a_disk_has(
    moorline: Moorline, files: Path, running: Any
) -> None:
    path = image(files)
    running.attachDeviceFlags(
        f"""<disk type='file' device='disk'><driver name='qemu' type='raw' queues='2'/>
        <source file='{path}'/><target dev='vdb' bus='virtio'/><serial>{VOLUME}</serial>
        <alias name='ua-{VOLUME}'/>
        <iotune><total_iops_sec>70</total_iops_sec></iotune></disk>""",
        LIVE | CONFIG,
    )
    moorline("adopt", NAME, path, "--format", "raw")
    (row,) = moorline.json("list")
    assert row["next"] == "nothing"
    assert (row["options"]["total_iops_sec"], row["options"]["queues"]) == (70, 2)
    running.setBlockIoTune("vdb", {"total_iops_sec": 0}, LIVE | CONFIG)
    moorline("sweep")
    assert block()["iops"] == 70


def boots_by_device(connection: Any, domain: Any) -> None:
    """Order the guest's devices, as it has none of its own, by an empty drive."""
    xml = ET.fromstring(domain.XMLDesc())
    for each in xml.findall("os/boot"):
        xml.find("os").remove(each)  # type: ignore[union-attr]
    drive = ET.SubElement(xml.find("devices"), "disk", type="file", device="cdrom")  # type: ignore[arg-type]
    ET.SubElement(drive, "target", dev="sdz", bus="sata")
    ET.SubElement(drive, "readonly")
    ET.SubElement(drive, "boot", order="2")
    connection.defineXML(ET.tostring(xml, encoding="unicode"))


def attribute(element: ET.Element, child: str, name: str) -> str | None:
    found = element.find(child)
    return None if found is None else found.get(name)


def test_a_place_in_the_boot_order_is_kept(
    moorline: Moorline, files: Path, stopped: Any, libvirt_conn: Any
) -> None:
    refused = attach(moorline, files, "--boot-order", "1", code=3)
    assert "by kinds of devices" in refused
    boots_by_device(libvirt_conn, stopped)
    start_paused(stopped)
    assert "sdz of small1 is at 2" in attach(moorline, files, "--boot-order", "2", code=3)
    attach(moorline, files, "--boot-order", "1")
    for _ in range(2):
        assert [attribute(disk(stopped, half), "boot", "order") for half in (LIVE, CONFIG)] == [
            "1",
            "1",
        ]
        assert property_of("bootindex") == 1
        (row,) = moorline.json("list")
        assert (row["next"], row["options"]["boot"]) == ("nothing", 1)
        restart(stopped)
    assert moorline.json("attach", NAME, image(files), "--format", "raw")["steps"] == []
    moorline("release", NAME, VOLUME)
    moorline("adopt", NAME, image(files), "--format", "raw")
    assert moorline.json("list")[0]["options"]["boot"] == 1


def test_a_guest_starts_without_a_disk_that_may_be_missing_and_gets_it_later(
    moorline: Moorline, files: Path, running: Any
) -> None:
    attach(moorline, files, "--startup-policy", "optional")
    for half in (LIVE, CONFIG):
        assert attribute(disk(running, half), "source", "startupPolicy") == "optional"
    path = Path(image(files))
    running.destroy()
    path.rename(files / "away")
    start_paused(running)
    assert marked(running, VOLUME, LIVE) is None
    (row,) = moorline.json("list")
    assert row["next"] != "nothing"
    (files / "away").rename(path)
    moorline("sweep")
    assert attribute(disk(running, LIVE), "source", "startupPolicy") == "optional"
    (row,) = moorline.json("list")
    assert (row["seen"], row["options"]["startup_policy"]) == ("attached", "optional")
    moorline("release", NAME, VOLUME)
    moorline("adopt", NAME, str(path), "--format", "raw")
    assert moorline.json("list")[0]["options"]["startup_policy"] == "optional"
