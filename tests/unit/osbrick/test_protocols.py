"""Connections of the block protocols, and links to what they connect."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moorline.backends.osbrick.backend import HELPER, LOCK_PATH, MULTIPATH, BlockVolume, OsBrick
from moorline.backends.osbrick.device import Device, look
from moorline.backends.osbrick.hyperscale import HyperScale
from moorline.backends.osbrick.protocols import FibreChannel, Iscsi, Local, NvmeOf
from moorline.errors import Failed, MoorlineError, NotOurs, Refused, Uncertain
from moorline.model import BlockDevice, Broken, Foreign, Linked, LinkName, Unknown, Unlinked
from moorline.ports import Call
from moorline.ports.inspection import Found
from moorline.testing.toy_host import ToyHost

IQN = "iqn.2010-10.org.openstack:volume-1"
NQN = "nqn.2014-08.org.nvmexpress:uuid:4d2ec5e1"
UUID = "2f1a9c1e-5b7d-4e21-9a68-0c1d2e3f4a5b"
ISCSI = {"target_portal": "192.0.2.1:3260", "target_iqn": IQN, "target_lun": 1}
FC = {"target_wwn": ["20210002AC00383D", "20220002AC00383D"], "target_lun": 1}
NVME = {"target_nqn": NQN, "vol_uuid": UUID, "portals": [["192.0.2.1", "4420", "tcp"]]}
KINDS: list[tuple[type[OsBrick[BlockVolume]], dict[str, Any]]] = [
    (Iscsi, ISCSI),
    (FibreChannel, FC),
    (NvmeOf, NVME),
]


def parse(kind: type[OsBrick[BlockVolume]], data: Mapping[str, Any], **flat: Any) -> BlockVolume:
    connection = {"driver_volume_type": kind.kind, "data": data, **flat}
    return kind(ToyHost(), Path("/nonexistent")).parse(connection)


# --- connections ---


@pytest.mark.parametrize(("kind", "data"), KINDS)
def test_a_connection_has_a_link_of_its_own_without_secrets(kind: Any, data: Any) -> None:
    volume = parse(kind, {**data, "auth_password": "sesame"}, serial="abc")
    assert str(volume.device).startswith(f"/dev/moorline/{kind.kind}-")
    assert volume.volume == "abc"
    assert volume.properties.reveal() == {**data, "auth_password": "sesame"}
    assert "sesame" not in repr(volume) + str(volume.device)


def test_the_link_is_the_same_however_the_connection_is_spelled() -> None:
    many = {
        "target_portals": ["192.0.2.2:3260", "192.0.2.1:3260"],
        "target_iqns": [f"{IQN}b", IQN],
        "target_luns": [2, 1],
    }
    turned = {key: value[::-1] for key, value in many.items()}
    assert parse(Iscsi, many).device == parse(Iscsi, turned).device != parse(Iscsi, ISCSI).device
    lower = {**FC, "target_wwn": [wwn.lower() for wwn in reversed(FC["target_wwn"])]}  # type: ignore[arg-type,call-overload]
    assert parse(FibreChannel, FC).device == parse(FibreChannel, lower).device
    plural = {"target_wwns": FC["target_wwn"], "target_luns": [1, 1]}
    assert parse(FibreChannel, FC).device == parse(FibreChannel, plural).device
    old = {"nqn": NQN, "vol_uuid": UUID.upper()}
    assert parse(NvmeOf, NVME).device == parse(NvmeOf, old).device


@pytest.mark.parametrize(
    ("kind", "data", "change"),
    [
        (Iscsi, ISCSI, {"target_iqn": f"{IQN}x"}),
        (Iscsi, ISCSI, {"target_lun": 2}),
        (FibreChannel, FC, {"target_lun": 2}),
        (FibreChannel, FC, {"target_wwn": ["20210002AC00383D"]}),
        (NvmeOf, NVME, {"vol_uuid": UUID.replace("2f", "3f")}),
        (NvmeOf, NVME, {"target_nqn": f"{NQN}x"}),
    ],
)
def test_other_volumes_have_other_links(kind: Any, data: Any, change: Any) -> None:
    assert parse(kind, data).device != parse(kind, {**data, **change}).device


@pytest.mark.parametrize(
    ("kind", "data", "change"),
    [
        (Iscsi, ISCSI, {"target_iqn": None}),
        (Iscsi, ISCSI, {"target_iqn": "--logout"}),
        (Iscsi, ISCSI, {"target_iqn": "iqn x"}),
        (Iscsi, ISCSI, {"target_portal": None}),
        (Iscsi, ISCSI, {"target_portal": "-p"}),
        (Iscsi, ISCSI, {"target_portals": [7], "target_iqns": [IQN]}),
        (Iscsi, ISCSI, {"target_iqns": [IQN] * 65}),
        (Iscsi, ISCSI, {"target_luns": [1, 2]}),
        (Iscsi, ISCSI, {"target_lun": "1"}),
        (Iscsi, ISCSI, {"target_luns": "2"}),
        (Iscsi, ISCSI, {"target_iqns": {"a": IQN}}),
        (NvmeOf, NVME, {"vol_uuid": [UUID], "ns_id": 1}),
        (NvmeOf, NVME, {"vol_uuid": True, "ns_id": 1}),
        (Iscsi, ISCSI, {"target_lun": True}),
        (Iscsi, ISCSI, {"target_lun": -1}),
        (Iscsi, ISCSI, {"format": "qcow2"}),
        (Iscsi, ISCSI, {"options": "-o x"}),
        (Iscsi, ISCSI, {"size": "1"}),
        (FibreChannel, FC, {"target_wwn": ["20210002AC00383"]}),
        (FibreChannel, FC, {"target_wwn": []}),
        (FibreChannel, FC, {"target_wwn": ["-0210002AC00383D"]}),
        (NvmeOf, NVME, {"target_nqn": "-x"}),
        (NvmeOf, NVME, {"vol_uuid": None}),
        (NvmeOf, NVME, {"vol_uuid": [UUID]}),
        (NvmeOf, NVME, {"vol_uuid": "--"}),
    ],
)
def test_odd_connections_are_refused(kind: Any, data: Any, change: Any) -> None:
    with pytest.raises(Refused):
        parse(kind, {**data, **change})


def test_sizes_are_gib_and_discards_are_heeded() -> None:
    volume = parse(Iscsi, {**ISCSI, "size": 3, "discard": True})
    assert (volume.size, volume.discard) == (3 << 30, True)
    assert parse(Iscsi, {**ISCSI, "discard": "yes"}).discard is False


def test_what_is_luks_is_a_device_that_is_deciphered() -> None:
    volume = parse(Iscsi, {**ISCSI, "format": "luks"})
    assert (volume.format, parse(Iscsi, ISCSI).format) == ("luks", "raw")
    assert volume.device == parse(Iscsi, ISCSI).device


def test_what_can_be_typed() -> None:
    hyperscale, local = (kind(ToyHost(), Path("/l")) for kind in (HyperScale, Local))
    connection = hyperscale.from_url("veritas_hyperscale://" + UUID, None)
    assert hyperscale.parse(connection).device == Path("/dev") / UUID[:31]
    assert hyperscale.parse(connection).volume == UUID
    assert local.parse(local.from_url("osbrick_local:///dev/vdz", "raw")).device == Path("/dev/vdz")
    for backend in (hyperscale, local, Iscsi(ToyHost(), Path("/l"))):
        with pytest.raises(Refused):
            backend.from_url(f"{backend.kind}://{UUID}", "qcow2")
    with pytest.raises(Refused, match="volume_name_template"):
        hyperscale.from_url("veritas_hyperscale://volume-1", None)


@pytest.mark.parametrize(
    "values", [{LOCK_PATH.name: "locks"}, {MULTIPATH.name: "perhaps"}, {MULTIPATH.name: ""}]
)
def test_unusable_options_are_refused(values: dict[str, str]) -> None:
    good = {LOCK_PATH.name: "/l", HELPER.name: "", MULTIPATH.name: "True"}
    Iscsi.from_options(ToyHost(), good)
    with pytest.raises(Refused):
        Iscsi.from_options(ToyHost(), {**good, **values})


# --- devices: a loop, a character device or a file stands for one; sysfs is a directory ---


@pytest.fixture
def sys(tmp_path: Path) -> Path:
    return tmp_path / "sys"


def a_disk() -> Path:
    """Some block device of this machine; it is not opened."""
    for path in Path("/dev").iterdir():
        if path.is_block_device():
            return path
    pytest.skip("there is no block device on this machine")


def describe(sys: Path, device: Path, *, size: int = 8, **facts: str) -> None:
    number = device.stat().st_rdev
    directory = sys / f"dev/block/{os.major(number)}:{os.minor(number)}"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "size").write_text(f"{size}\n")
    for name, text in facts.items():
        (directory / name).write_text(f"{text}\n")


def test_a_device_is_told_from_all_else(sys: Path, tmp_path: Path) -> None:
    disk = a_disk()
    assert isinstance(look(disk, sys), Broken), "nothing is behind the node"
    describe(sys, disk, size=0)
    assert isinstance(look(disk, sys), Broken), "no medium"
    describe(sys, disk, size=8, wwid="naa.6001405")
    assert look(disk, sys) == Device(4096, disk.stat().st_rdev, frozenset({"naa.6001405"}))
    link = tmp_path / "link"
    assert isinstance(look(link, sys), Unlinked)
    link.symlink_to(disk)
    assert look(link, sys) == look(disk, sys)
    link.unlink()
    link.symlink_to(tmp_path / "gone")
    assert isinstance(look(link, sys), Broken)
    (notes := tmp_path / "notes").touch()
    for foreign in (tmp_path, Path("/dev/null"), notes, notes / "x"):
        assert isinstance(look(foreign, sys), Foreign), foreign


class Bench:
    """An iSCSI or NVMe volume whose link is in a temporary directory, and an os-brick of ours."""

    def __init__(self, tmp_path: Path, sys: Path, kind: Any = Iscsi, data: Any = ISCSI) -> None:
        self.host = ToyHost(answers=self.answer)
        self.sys = sys
        self.disk = a_disk()
        self.backend = kind(self.host, tmp_path / "locks", patience=0.1, sys=sys)
        self.volume = replace(parse(kind, data), device=tmp_path / "link")
        self.calls: list[Call] = []
        self.does: Any = lambda do: None

    def answer(self, call: Call) -> Mapping[str, Any]:
        self.calls.append(call)
        self.does(call.question.reveal()["do"])
        return {"device": {"path": "/dev/sdx"}, "paths": []}

    def links(self, do: str) -> None:
        if do == "connect":
            self.volume.device.symlink_to(self.disk)
        else:
            self.volume.device.unlink()

    def raises(self, error: MoorlineError) -> None:
        def does(do: str) -> None:
            raise error

        self.does = does


@pytest.fixture
def bench(tmp_path: Path, sys: Path) -> Bench:
    bench = Bench(tmp_path, sys)
    describe(sys, bench.disk)
    bench.does = bench.links
    return bench


def test_connecting_and_disconnecting_by_os_brick(bench: Bench, tmp_path: Path) -> None:
    bench.backend.connect(bench.volume)
    link = bench.backend.inspect(bench.volume)
    assert link == Linked(BlockDevice(bench.volume.device))
    bench.backend.connect(bench.volume)
    bench.backend.verify(bench.volume)
    bench.backend.disconnect(bench.volume)
    bench.backend.disconnect(bench.volume)
    assert [call.question.reveal()["do"] for call in bench.calls] == ["connect", "disconnect"]
    assert {call.hold.parent for call in bench.calls if call.hold} == {tmp_path / "locks"}
    assert list((tmp_path / "locks").iterdir()) == []


@pytest.mark.parametrize("error", [Failed("no"), Uncertain("perhaps")])
def test_after_an_error_it_is_tried_again_or_undone(bench: Bench, error: MoorlineError) -> None:
    bench.raises(error)
    with pytest.raises(type(error)):
        bench.backend.connect(bench.volume)
    bench.does = lambda do: None
    bench.backend.disconnect(bench.volume)  # it may have happened: os-brick is asked to undo it
    assert [call.question.reveal()["do"] for call in bench.calls] == ["connect", "disconnect"]


def test_after_a_refusal_there_is_nothing_to_undo(bench: Bench, tmp_path: Path) -> None:
    """os-brick is not installed, say: then it could not undo anything either."""
    bench.raises(Refused("never"))
    with pytest.raises(Refused):
        bench.backend.connect(bench.volume)
    assert list((tmp_path / "locks").iterdir()) == []
    bench.backend.disconnect(bench.volume)
    assert len(bench.calls) == 1


def test_a_refusal_does_not_excuse_what_was_begun_before(bench: Bench) -> None:
    for error in (Uncertain("perhaps"), Refused("never")):
        bench.raises(error)
        with pytest.raises(type(error)):
            bench.backend.connect(bench.volume)
    bench.does = lambda do: None
    bench.backend.disconnect(bench.volume)
    assert bench.calls[-1].question.reveal()["do"] == "disconnect"


def test_os_brick_is_not_believed(bench: Bench) -> None:
    bench.does = lambda do: None
    with pytest.raises(Uncertain, match="there is no"):
        bench.backend.connect(bench.volume)
    bench.volume.device.symlink_to(bench.disk)
    with pytest.raises(Uncertain, match="is still there"):
        bench.backend.disconnect(bench.volume)


def test_what_was_begun_is_found_and_left_to_who_has_the_connection(bench: Bench) -> None:
    assert bench.backend.links() == []
    bench.backend.connect(bench.volume)
    (found,) = bench.backend.links()
    link = LinkName(str(parse(Iscsi, ISCSI).device))
    assert found == Found(link, Unlinked()), "its link is elsewhere here"
    with pytest.raises(Refused, match="attach its volume with its connection"):
        bench.backend.clear(found.link)
    assert len(bench.calls) == 1
    (bench.calls[0].hold.parent / "moorline-iscsi-x.command").touch()  # type: ignore[union-attr]
    assert bench.backend.links() == [found]
    bench.backend.disconnect(bench.volume)
    assert bench.backend.links() == []


def test_while_a_command_runs_nothing_else_is_done(bench: Bench, tmp_path: Path) -> None:
    bench.backend.connect(bench.volume)
    hold = bench.calls[0].hold
    assert hold is not None
    bench.host.holds.add(hold)
    link = bench.backend.inspect(bench.volume)
    assert isinstance(link, Unknown)
    assert not link.hangs, "the guest may be asked to let go of the disk"
    for change in (bench.backend.connect, bench.backend.disconnect):
        with pytest.raises(Uncertain):
            change(bench.volume)
    assert len(bench.calls) == 1


def test_what_is_foreign_or_broken_is_not_connected_over(bench: Bench) -> None:
    bench.volume.device.write_text("notes")
    for change in (bench.backend.connect, bench.backend.disconnect):
        with pytest.raises(NotOurs):
            change(bench.volume)
    bench.volume.device.unlink()
    bench.volume.device.symlink_to("gone")
    with pytest.raises(Failed):
        bench.backend.connect(bench.volume)
    bench.backend.disconnect(bench.volume)
    assert [call.question.reveal()["do"] for call in bench.calls] == ["disconnect"]


def test_a_device_that_is_too_small_is_refused(bench: Bench) -> None:
    bench.backend.connect(bench.volume)
    with pytest.raises(Refused, match="4096 bytes"):
        bench.backend.verify(replace(bench.volume, size=4097))
    bench.backend.verify(replace(bench.volume, size=4096))


@pytest.mark.parametrize(
    ("data", "wwid", "same"),
    [
        (NVME, f"uuid.{UUID}", True),
        (NVME, "uuid.3f1a9c1e-5b7d-4e21-9a68-0c1d2e3f4a5b", False),
        (NVME, "", False),
        ({**NVME, "volume_nguid": "6c2a"}, "eui.6c2a", False),
        ({"nqn": NQN, "volume_nguid": "6C2A"}, "eui.006c2a", True),
        ({"nqn": NQN, "ns_id": 1}, "", True),
    ],
)
def test_a_namespace_of_another_identity_is_refused(
    tmp_path: Path, sys: Path, data: Any, wwid: str, same: bool
) -> None:
    bench = Bench(tmp_path, sys, NvmeOf, data)
    describe(sys, bench.disk, wwid=wwid)
    bench.does = bench.links
    bench.backend.connect(bench.volume)
    if same:
        bench.backend.verify(bench.volume)
    else:
        with pytest.raises(Refused, match="is not the volume"):
            bench.backend.verify(bench.volume)
