"""os-brick's other connectors through the bridge, as far as this kernel lets.

``local`` is real. There are no targets here for iSCSI, NVMe-oF and Fibre Channel (nor a
kernel that could reach them): of those, what is tried is that the connection is parsed, that
os-brick's own connector is reached in the child, and what its errors become.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab import loops
from moorline.backends.osbrick import protocols
from moorline.backends.osbrick.backend import BlockVolume
from moorline.errors import Failed, Refused, Uncertain
from moorline.host.linux import Linux
from moorline.model import BlockDevice, Broken, Linked, Unlinked
from moorline.ports import Host
from moorline.secret import Secret
from moorline.testing.contracts.backend import BackendContract, BackendRig

IQN = "iqn.2010-10.org.openstack:volume-1"
NQN = "nqn.2014-08.org.nvmexpress:uuid:4d2ec5e1-7a0d-4d43-a5b2-54f1b9e5b6a5"


@pytest.fixture(scope="module")
def linux(lab: Path) -> Iterator[Linux]:
    host = Linux()
    host_call_imports(host)
    yield host
    host.close()


def host_call_imports(host: Linux) -> None:
    backend = protocols.Local(host, Path("/nonexistent"))
    device = backend.parse(connection("/dev/loop0"))
    assert backend.ask("connect", device)["device"] == {"type": "local", "path": "/dev/loop0"}


def connection(path: Path | str, **data: Any) -> dict[str, Any]:
    return {"driver_volume_type": "osbrick_local", "data": {"device_path": str(path), **data}}


class LocalRig(BackendRig):
    given = True

    def __init__(self, host: Linux, directory: Path) -> None:
        self.backend = protocols.Local(host, directory / "locks")
        self.directory = directory
        self.numbers = [self.device(directory / name) for name in ("one", "two")]
        one, two = (f"/dev/loop{number}" for number in self.numbers)
        self.good, self.other = connection(one), connection(two)
        self.missing = connection("/dev/moorline-none")
        self.respelled = ({**self.good, "serial": "abc"}, connection(one, format="raw"))
        self.unfit = {
            "a character device": connection("/dev/null"),
            "a directory": connection("/dev/shm"),
            "too small": connection(one, size=1),
        }
        self.hostile = {
            repr(path): connection(path)
            for path in ("", "/", "/dev", "/etc/passwd", "dev/loop0", "/dev/../etc/x", "/dev//x")
        }

    def device(self, file: Path) -> int:
        with file.open("wb") as opened:
            opened.truncate(1 << 20)
        return loops.attach(file)

    def world(self) -> object:
        return sorted(path.name for path in self.directory.rglob("*"))

    def tear_down(self) -> None:
        for number in self.numbers:
            loops.detach(number)


@pytest.fixture
def local(linux: Linux, tmp_path: Path) -> Iterator[LocalRig]:
    rig = LocalRig(linux, tmp_path)
    yield rig
    rig.tear_down()


class TestLocal(BackendContract):
    @pytest.fixture
    def rig(self, local: LocalRig) -> BackendRig:
        return local


def test_local_is_verified_by_os_bricks_own_connector(local: LocalRig) -> None:
    parsed = local.backend.parse(local.good)
    local.backend.connect(parsed)
    link = local.backend.inspect(parsed)
    assert isinstance(link, Linked)
    assert link.given


class IscsiByLocal(protocols.Iscsi):
    """All of iSCSI's way but the connector: os-brick's ``local`` names the device instead."""

    protocol = "LOCAL"

    def __init__(self, host: Host, locks: Path, device: Path) -> None:
        super().__init__(host, locks, patience=0.5, deadline=4)
        self.device = device

    def parse(self, connection: Mapping[str, Any]) -> BlockVolume:
        properties = Secret({"device_path": str(self.device)})
        return replace(super().parse(connection), properties=properties)


@pytest.fixture
def by_id() -> Iterator[Path]:
    """udev's directory, which the lab's /dev lacks."""
    directory = Path("/dev/disk/by-id")
    directory.mkdir(parents=True)
    yield directory
    shutil.rmtree("/dev/disk")
    shutil.rmtree("/dev/moorline", ignore_errors=True)


def test_a_guest_gets_a_link_to_the_name_that_lasts(
    local: LocalRig, linux: Linux, tmp_path: Path, by_id: Path
) -> None:
    device = Path(f"/dev/loop{local.numbers[0]}")
    bridge = IscsiByLocal(linux, tmp_path / "locks", device)
    volume = bridge.parse({"driver_volume_type": "iscsi", "data": ISCSI})
    with pytest.raises(Uncertain, match="udev has made no name"):
        bridge.connect(volume)
    name = by_id / "wwn-0x6001405"
    name.symlink_to(device)
    bridge.connect(volume)
    assert bridge.inspect(volume) == Linked(BlockDevice(volume.device))
    assert volume.device.readlink() == name
    bridge.verify(volume)
    name.unlink()  # the volume went away, and its kernel name may be another's by now
    (by_id / "wwn-0x7777777").symlink_to(device)
    assert isinstance(bridge.inspect(volume), Broken)
    with pytest.raises(Failed, match="a device that is gone"):
        bridge.verify(volume)
    bridge.disconnect(volume)
    assert not os.path.lexists(volume.device)
    assert list((tmp_path / "locks").iterdir()) == []


ISCSI = {"target_portal": "127.0.0.1:3260", "target_iqn": IQN, "target_lun": 1}
CHAP = {"auth_method": "CHAP", "auth_username": "u", "auth_password": "sesame-7301"}
NVME = {"target_nqn": NQN, "vol_uuid": "2f1a9c1e-5b7d-4e21-9a68-0c1d2e3f4a5b"}
PORTALS = {"portals": [["127.0.0.1", "4420", "tcp"]]}


@pytest.mark.parametrize(
    ("backend", "data", "words"),
    [
        (protocols.Iscsi, {**ISCSI, **CHAP}, "iscsiadm"),
        (protocols.FibreChannel, {"target_wwn": ["20210002AC00383D"], "target_lun": 1}, "Fibre"),
        (protocols.NvmeOf, {**NVME, **PORTALS}, "Volume device not found"),
    ],
)
def test_fabrics_come_to_an_honest_error_and_leave_nothing(
    linux: Linux, tmp_path: Path, backend: Any, data: dict[str, Any], words: str
) -> None:
    """By contract only: nothing was ever connected by these here."""
    bridge = backend(linux, tmp_path / "locks", deadline=30)
    volume = bridge.parse({"driver_volume_type": bridge.kind, "data": data})
    assert isinstance(bridge.inspect(volume), Unlinked)
    with pytest.raises((Failed, Uncertain), match=words) as raised:
        bridge.connect(volume)
    assert "sesame" not in str(raised.value)
    with pytest.raises(Refused, match="there is no device"):
        bridge.verify(volume)
    bridge.disconnect(volume)
    assert isinstance(bridge.inspect(volume), Unlinked)
    assert not list((tmp_path / "locks").glob("moorline-*"))
