"""The stand-in for HyperScale's hscli."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import loops
from lab.hyperscale.installation import HyperScale, HyperScaleVolume


@pytest.fixture
def product(lab: Path) -> Iterator[HyperScale]:
    product = HyperScale(lab)
    yield product
    product.clear()


@pytest.fixture
def volume(product: HyperScale) -> HyperScaleVolume:
    return product.volume()


def call(*argv: str, user: int | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["hscli", *argv], check=False, capture_output=True, text=True, timeout=20, user=user
    )


def hscli(operation: str, **fields: Any) -> dict[str, Any]:
    done = call(json.dumps({"operation": operation, **fields}))
    assert (done.returncode, done.stderr) == (0, "")
    answer: dict[str, Any] = json.loads(done.stdout or "{}")
    return answer


def code(operation: str, **fields: Any) -> int:
    answer = hscli(operation, **fields)
    assert answer["token"] == operation
    assert answer["err_msg"]
    number: int = answer["err_code"]
    return number


def test_connecting_makes_a_device_of_the_volume(volume: HyperScaleVolume) -> None:
    for _ in range(2):  # connected already is success
        payload = hscli("connect_volume", volume_guid=volume.name)["payload"]
        assert payload == {
            "vsa_ip": "192.0.2.2",
            "refl_factor": "2",
            "refl_targets": "192.0.2.3,192.0.2.4",
        }
    assert str(volume.device) == f"/dev/{volume.name[1:32]}"
    volume.file.open("r+b").write(b"content")
    os.sync()
    with volume.device.open("rb") as device:
        assert device.read(7) == b"content"
    assert hscli("get_volume_path", image_id=volume.name) == {"payload": str(volume.device)}
    assert hscli("disconnect_volume", volume_guid=volume.name) == {}
    assert volume.loop is None
    assert not volume.device.exists()


def test_its_version() -> None:
    assert hscli("version") == {"payload": "1.0.0"}


def test_errors_by_code(volume: HyperScaleVolume) -> None:
    assert code("connect_volume", volume_guid="{none}") == 1
    assert code("disconnect_volume", volume_guid=volume.name) == 1
    assert code("get_volume_path", image_id=volume.name) == 1
    assert code("episodic_snap") == 10
    assert code("connect_volume") == 10
    assert code("connect_volume", volume_guid="../x") == 10
    for argv in (["{"], ["[]"], ["{}"], [], ["{}", "{}"]):
        assert json.loads(call(*argv).stdout)["err_code"] == 106


def test_only_root_may(volume: HyperScaleVolume) -> None:
    done = call('{"operation": "version"}', user=65534)
    assert (done.returncode, done.stdout) == (1, "")
    assert "only root" in done.stderr


def test_what_is_in_use_is_not_torn_down(volume: HyperScaleVolume) -> None:
    hscli("connect_volume", volume_guid=volume.name)
    with volume.device.open("rb"):
        assert code("disconnect_volume", volume_guid=volume.name) == 1
        assert volume.device.exists()
    assert hscli("disconnect_volume", volume_guid=volume.name) == {}


def test_the_node_of_a_device_that_died_is_cleared_away(volume: HyperScaleVolume) -> None:
    for operation in ("disconnect_volume", "connect_volume"):
        hscli("connect_volume", volume_guid=volume.name)
        number = volume.loop
        assert number is not None
        loops.detach(number)
        assert volume.device.exists()
        assert "err_code" not in hscli(operation, volume_guid=volume.name)
        assert volume.device.exists() is (operation == "connect_volume")
    assert volume.loop is not None


def test_of_two_alike_the_second_has_the_firsts_device(product: HyperScale) -> None:
    one = product.volume(id="8ee71c33-dcd0-4267-8f2b-e0742ecabe9f")
    two = product.volume(id="8ee71c33-dcd0-4267-8f2b-e0742ec00000")
    for volume in (one, two):
        hscli("connect_volume", volume_guid=volume.name)
    assert hscli("get_volume_path", image_id=one.name)["payload"] == str(two.device)
    assert code("get_volume_path", image_id=two.name) == 1


def test_it_misbehaves_as_it_is_told(volume: HyperScaleVolume) -> None:
    def connect() -> subprocess.CompletedProcess[str]:
        return call(json.dumps({"operation": "connect_volume", "volume_guid": volume.name}))

    volume.command(fail={"code": 7, "stderr": "no"})
    assert (connect().returncode, connect().stderr) == (7, "hscli: no\n")
    volume.command(lie=True)
    assert "refl_targets" in connect().stdout
    assert volume.loop is None
    volume.command(payload={"vsa_ip": None, "refl_factor": 0})
    assert json.loads(connect().stdout)["payload"] == {
        "refl_factor": 0,
        "refl_targets": "192.0.2.3,192.0.2.4",
    }
    volume.command(answer={"stdout": "x", "stderr": "y", "code": 4})
    done = connect()
    assert (done.returncode, done.stdout, done.stderr) == (4, "x", "y")
    volume.command(disconnect_volume={"slow": 0.3})
    began = time.monotonic()
    hscli("disconnect_volume", volume_guid=volume.name)
    assert time.monotonic() - began > 0.3


def test_calls_are_noted_with_their_message(product: HyperScale) -> None:
    hscli("version")
    call("{")
    first, second = product.calls()
    assert (first["message"], first["uid"]) == ({"operation": "version"}, 0)
    assert second["message"] is None
