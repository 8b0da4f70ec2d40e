"""LUNs that QEMU logs in to itself, against the back end contract, and what is theirs alone.

What the target answers was captured from tgt 1.0.85 by the child that asks it; the child itself
is tried on it in ``tests/lab/test_iscsi_qemu.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from moorline.backends.iscsi_qemu import IscsiQemu, Lun
from moorline.backends.lun_identity import world_wide
from moorline.errors import Failed, Refused, Uncertain
from moorline.model import NetworkDisk
from moorline.ports import Call
from moorline.testing.contracts.backend import BackendContract, BackendRig
from moorline.testing.toy_host import ToyHost

TARGET = "iqn.2026-01.lab:vol1"
PASSWORD = "twelve-chars-xx"
TGT: Mapping[str, Any] = {
    "bytes": 67108864,
    "ids": [],
    "reserved": False,
}
NO_LUN = "SENSE KEY:ILLEGAL_REQUEST(5) ASCQ:LOGICAL_UNIT_NOT_SUPPORTED(0x2500)"


def connection(lun: Any = 1, target: Any = TARGET, **more: Any) -> dict[str, Any]:
    """As Cinder's LVM driver gives it to os-brick, but for the type."""
    data = {
        "target_discovered": False,
        "target_portal": "192.0.2.1:3260",
        "target_iqn": target,
        "target_lun": lun,
        "volume_id": "6f1c7f3e-7a0e-4c8e-9f0a-3f6f0f9b8a11",
        "auth_method": "CHAP",
        "auth_username": "moor",
        "auth_password": PASSWORD,
        "encrypted": False,
        "qos_specs": None,
        "access_mode": "rw",
        **more,
    }
    return {"driver_volume_type": "iscsi_qemu", "data": data}


class TargetRig(BackendRig):
    given = True
    secrets = (PASSWORD, "moor")

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.units: dict[tuple[str, int], dict[str, Any]] = {
            (TARGET, lun): dict(TGT) for lun in (1, 2, 3)
        }
        self.units[TARGET, 3]["reserved"] = True
        self.backend = IscsiQemu(ToyHost(answers=self.answer))
        self.good = connection()
        self.other = connection(2)
        self.missing = connection(7)
        several = {
            "target_portals": ["192.0.2.1:3260", "192.0.2.9:3260"],
            "target_iqns": [TARGET, TARGET],
            "target_luns": [1, 1],
        }
        gone = dict.fromkeys(("target_portal", "target_iqn", "target_lun"))
        self.respelled = (
            connection(target_portal="192.0.2.1"),
            connection(target_portal="[2001:db8::1]:3260"),
            connection(target_portal="storage.example.org:860"),
            connection(target=TARGET.upper().replace("IQN.", "iqn.")),
            connection(**several),
            connection(**gone, **several),
            connection(auth_method=None, auth_username=None, auth_password=None),
            {"driver_volume_type": "iscsi_qemu", **self.good["data"]},
        )
        self.unfit = {"smaller than is said": connection(size=1)}
        self.hostile = {
            **{f"the LUN {lun!r}": connection(lun) for lun in (-1, "1", True, 1.0, 16384, None)},
            **{
                f"the target {name!r}": connection(target=name)
                for name in ("", "vol1", "iqn.", "iqn.a/b", "iqn.a b", "-iqn.a", "iqn.a\n", None)
            },
            **{
                f"the portal {portal!r}": connection(target_portal=portal)
                for portal in ("", "a b", "u:p@h:3260", "h:0", "h:99999", "[::1", "-h", 7, None)
            },
            "no password": connection(auth_password=None),
            "no user": connection(auth_username=""),
            "a way to log in that is not known": connection(auth_method="SRP"),
            "no portal in the list": connection(target_portal=None, target_portals=[]),
            "qcow2": connection(format="qcow2"),
            "mount options": connection(options="-o ro"),
        }

    def answer(self, call: Call) -> Mapping[str, Any]:
        self.calls.append(call)
        asked = call.question.reveal()
        unit = self.units.get((asked["target"], asked["lun"]))
        if unit is None:  # as libiscsi's child says it
            raise Refused(f"there is no LUN {asked['lun']}: {NO_LUN}")
        return unit

    def world(self) -> object:
        return {key: dict(unit) for key, unit in self.units.items()}


@pytest.fixture
def rig() -> TargetRig:
    return TargetRig()


class TestLuns(BackendContract):
    @pytest.fixture
    def rig(self, rig: TargetRig) -> BackendRig:
        return rig


def parsed(rig: TargetRig, **more: Any) -> Lun:
    lun: Lun = rig.backend.parse(connection(**more))
    return lun


def test_the_password_goes_to_the_child_and_to_the_hypervisor_alone(rig: TargetRig) -> None:
    lun = parsed(rig)
    source = rig.backend.verify(lun)
    assert isinstance(source, NetworkDisk)
    assert source.login is not None
    assert (source.login.user, source.login.password.reveal()) == ("moor", PASSWORD)
    (call,) = rig.calls
    assert call.question.reveal()["password"] == PASSWORD
    assert PASSWORD not in f"{call}{lun}{source}{rig.backend.url(lun)}"


def test_a_target_that_hangs_is_uncertain_and_one_that_is_away_failed(rig: TargetRig) -> None:
    for error in (Uncertain("no answer within 5 s"), Failed("cannot be reached")):

        def fail(call: Call, error: Exception = error) -> Mapping[str, Any]:
            raise error

        with pytest.raises(type(error)):
            IscsiQemu(ToyHost(answers=fail)).verify(parsed(rig))


def test_what_another_machine_keeps_for_itself_is_told(rig: TargetRig) -> None:
    assert rig.backend.verify(parsed(rig)).reserved == ""
    assert "is reserved: another" in rig.backend.verify(parsed(rig, lun=3)).reserved


def test_what_the_target_does_not_tell_counts_as_reserved(rig: TargetRig) -> None:
    rig.units[TARGET, 1]["reserved"] = None
    assert "does not tell whether" in rig.backend.verify(parsed(rig)).reserved


def test_a_lun_is_known_by_its_names_in_all_the_world(rig: TargetRig) -> None:
    rig.units[TARGET, 1]["ids"] = ["naa.60014051", "eui.0014050000000001"]
    ids = frozenset(rig.units[TARGET, 1]["ids"])
    lun = parsed(rig)
    assert rig.backend.ids(lun) == rig.backend.verify(lun).ids == ids
    rig.units.clear()
    assert rig.backend.ids(lun) == ids, "what it was when it was given to the guest"
    with pytest.raises(Refused):
        rig.backend.ids(parsed(rig, lun=2))


@pytest.mark.parametrize(
    ("type", "value", "name"),
    [
        (3, "60014054f2d35ab9c5a4d12a0b6a4c0d", "naa.60014054f2d35ab9c5a4d12a0b6a4c0d"),  # LIO
        (3, "5000c500a1b2c3d4", "naa.5000c500a1b2c3d4"),
        (3, "20000004cf1a2b3c", "naa.20000004cf1a2b3c"),
        (2, "0025385981b01234", "eui.0025385981b01234"),
        (2, "00000000000000010025385981b01234", "eui.00000000000000010025385981b01234"),
        (3, "3000000100000001", ""),  # of each tgt
        (3, "60000000000000000e00000000010001", ""),
        (3, "6001", ""),
        (2, "002538", ""),
        (1, b"IET     00010001".hex(), ""),
        (3, "", ""),
    ],
)
def test_only_names_with_a_maker_are_the_worlds(type: int, value: str, name: str) -> None:
    assert world_wide(type, bytes.fromhex(value)) == name


def test_its_size_is_told_while_somebody_keeps_it(rig: TargetRig) -> None:
    assert rig.backend.size(parsed(rig, lun=3)) == TGT["bytes"]


def test_what_is_typed_has_no_password_and_is_not_quoted(rig: TargetRig) -> None:
    for url in (
        f"iscsi_qemu://moor:{PASSWORD}@192.0.2.1/{TARGET}/1",
        f"iscsi_qemu://moor%{PASSWORD}@192.0.2.1/{TARGET}/1",
        f"iscsi_qemu://192.0.2.1/{TARGET}",
        f"iscsi_qemu://192.0.2.1/{TARGET}/one",
        f"iscsi_qemu://192.0.2.1/{TARGET}/1/2",
    ):
        with pytest.raises(Refused) as refused:
            rig.backend.parse(rig.backend.from_url(url, None))
        assert PASSWORD not in str(refused.value)
    with pytest.raises(Refused, match="not qcow2"):
        rig.backend.from_url(f"iscsi_qemu://192.0.2.1/{TARGET}/1", "qcow2")


def test_the_initiator_is_the_operators(rig: TargetRig) -> None:
    made = IscsiQemu.from_options(
        ToyHost(answers=rig.answer), {"iscsi_qemu_initiator": "iqn.2026-01.lab:host1"}
    )
    source = made.verify(made.parse(rig.good))
    assert source.initiator == "iqn.2026-01.lab:host1"
    assert rig.calls[-1].question.reveal()["initiator"] == "iqn.2026-01.lab:host1"
    for odd in ("host1", "iqn.a b", "-iqn.a"):
        with pytest.raises(Refused):
            IscsiQemu.from_options(ToyHost(), {"iscsi_qemu_initiator": odd})
