"""HyperScale through the bridge to os-brick: the contract, and what can go wrong with hscli."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hyperscale_rig import HyperScaleRig
from libvirt_rig import until

from lab import loops
from lab.hyperscale.installation import HyperScale
from moorline.backends.osbrick import hyperscale as hyperscales
from moorline.errors import Failed, MoorlineError, NotOurs, Refused, Uncertain
from moorline.host.linux import Linux
from moorline.model import Foreign, Linked, Unknown, Unlinked
from moorline.testing.contracts.backend import (
    BackendContract,
    BackendRig,
    connect,
    disconnect,
    look,
)


@pytest.fixture(scope="module")
def linux(lab: Path) -> Iterator[Linux]:
    """One for all tests here: os-brick takes half a second to import."""
    host = Linux()
    yield host
    host.close()


@pytest.fixture(scope="module")
def warm(linux: Linux, tmp_path_factory: pytest.TempPathFactory, lab: Path) -> Linux:
    """It has imported os-brick: what a test leaves behind is compared with what was."""
    rig = HyperScaleRig(HyperScale(lab), linux, tmp_path_factory.mktemp("warm"))
    with suppress(MoorlineError):
        connect(rig, rig.missing)
    rig.tear_down()
    return linux


@pytest.fixture
def hyperscale(warm: Linux, lab: Path, tmp_path: Path) -> Iterator[HyperScaleRig]:
    rig = HyperScaleRig(HyperScale(lab), warm, tmp_path)
    yield rig
    rig.tear_down()


class TestHyperScale(BackendContract):
    @pytest.fixture
    def rig(self, hyperscale: HyperScaleRig) -> BackendRig:
        return hyperscale


FAILURES: dict[str, tuple[dict[str, Any], type[MoorlineError], str]] = {
    "exit code": ({"fail": {"code": 3, "stderr": "no way"}}, Failed, "exited 3: hscli: no way"),
    "stderr": ({"answer": {"stdout": "{}", "stderr": "hm"}}, Uncertain, "exited 0, and said: hm"),
    "no JSON": ({"answer": {"stdout": "ok!"}}, Uncertain, "answered no JSON: ok!"),
    "error 1": ({"answer": {"stdout": '{"err_code": 1, "err_msg": "dn down"}'}}, Failed, "dn down"),
    "error 10": ({"answer": {"stdout": '{"err_code": 10}'}}, Refused, "error 10"),
    "no refl_targets": ({"payload": {"refl_targets": None}}, Uncertain, "no refl_targets"),
    "a lie": ({"lie": True}, Uncertain, "yet there is no /dev/8ee71c33"),
}


@pytest.mark.parametrize(("control", "family", "text"), FAILURES.values(), ids=FAILURES)
def test_failures_are_told_apart_and_can_be_repeated(
    hyperscale: HyperScaleRig,
    control: dict[str, Any],
    family: type[MoorlineError],
    text: str,
) -> None:
    before = hyperscale.world()
    hyperscale.volume.command(**control)
    with pytest.raises(MoorlineError, match=text) as raised:
        connect(hyperscale, hyperscale.good)
    assert type(raised.value) is family
    hyperscale.volume.command()
    connect(hyperscale, hyperscale.good)
    disconnect(hyperscale, hyperscale.good)
    assert hyperscale.world() == before


def test_hscli_is_not_installed(
    hyperscale: HyperScaleRig, lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = os.environ["PATH"].split(":")
    monkeypatch.setenv("PATH", ":".join(w for w in words if not w.startswith(str(lab))))
    host = Linux()
    rig = HyperScaleRig.__new__(HyperScaleRig)
    rig.backend = type(hyperscale.backend)(host, tmp_path / "locks")
    with pytest.raises(Failed, match="hscli cannot be run"):
        connect(rig, hyperscale.good)
    host.close()


def test_a_volume_in_use_is_not_torn_down(hyperscale: HyperScaleRig) -> None:
    connect(hyperscale, hyperscale.good)
    with hyperscale.volume.device.open("rb"):
        with pytest.raises(Failed, match="in use"):
            disconnect(hyperscale, hyperscale.good)
        assert isinstance(look(hyperscale, hyperscale.good), Linked)
    disconnect(hyperscale, hyperscale.good)


def test_a_lying_disconnect_is_found_out(hyperscale: HyperScaleRig) -> None:
    connect(hyperscale, hyperscale.good)
    hyperscale.volume.command(disconnect_volume={"lie": True})
    with pytest.raises(Uncertain, match="is still there"):
        disconnect(hyperscale, hyperscale.good)
    hyperscale.volume.command()
    disconnect(hyperscale, hyperscale.good)
    assert hyperscale.volume.loop is None


def test_a_half_that_was_left_without_a_device_is_disconnected(hyperscale: HyperScaleRig) -> None:
    before = hyperscale.world()
    connect(hyperscale, hyperscale.good)
    hyperscale.volume.device.unlink()
    assert isinstance(look(hyperscale, hyperscale.good), Unlinked)
    disconnect(hyperscale, hyperscale.good)
    assert hyperscale.world() == before


def test_a_volume_whose_guid_begins_alike_is_foreign(hyperscale: HyperScaleRig) -> None:
    connect(hyperscale, hyperscale.good)
    alike = hyperscale.alike.connection()
    assert hyperscale.alike.device == hyperscale.volume.device
    assert isinstance(look(hyperscale, alike), Foreign)
    with pytest.raises(Refused, match="is the device of volume 8ee71c33"):
        hyperscale.backend.verify(hyperscale.backend.parse(alike))
    for change in (connect, disconnect):
        with pytest.raises(NotOurs):
            change(hyperscale, alike)
    assert hyperscale.alike.loop is None
    assert isinstance(look(hyperscale, hyperscale.good), Linked)
    disconnect(hyperscale, hyperscale.good)


def test_a_stale_node_is_not_given_to_a_guest(hyperscale: HyperScaleRig) -> None:
    connect(hyperscale, hyperscale.good)
    connect(hyperscale, hyperscale.other)
    hyperscale.volume.device.unlink()
    assert hyperscale.second.loop is not None
    loops.node(hyperscale.volume.device, hyperscale.second.loop)
    with pytest.raises(Refused, match="are the same device"):
        hyperscale.backend.verify(hyperscale.backend.parse(hyperscale.good))


def test_if_hscli_says_that_it_is_another_no_guest_gets_it(hyperscale: HyperScaleRig) -> None:
    connect(hyperscale, hyperscale.good)
    parsed = hyperscale.backend.parse(hyperscale.good)
    answer = {"stdout": '{"payload": "/dev/another"}'}
    hyperscale.volume.command(get_volume_path={"answer": answer})
    with pytest.raises(Refused, match="hscli says"):
        hyperscale.backend.verify(parsed)
    hyperscale.volume.command(get_volume_path={"answer": {"stdout": '{"err_code": 10}'}})
    hyperscale.backend.verify(parsed)  # a client that does not tell proves nothing


def test_what_was_begun_is_found_and_can_be_cleared(hyperscale: HyperScaleRig) -> None:
    backend = hyperscale.backend
    assert isinstance(backend, hyperscales.HyperScale)
    assert backend.links() == []
    connect(hyperscale, hyperscale.good)
    connect(hyperscale, hyperscale.other)
    hyperscale.second.device.unlink()
    told = {found.link: found.ill for found in backend.links()}
    assert told == {
        str(hyperscale.volume.device): None,
        str(hyperscale.second.device): Unlinked(),
    }
    for link in told:
        backend.clear(link)
    assert backend.links() == []
    assert [volume.loop for volume in hyperscale.volumes()] == [None] * 3
    with pytest.raises(Refused):
        backend.clear(next(iter(told)))


def test_what_another_tool_connected_is_recognised(hyperscale: HyperScaleRig) -> None:
    connect(hyperscale, hyperscale.good)
    for hold in hyperscale.locks.iterdir():
        hold.unlink()
    assert isinstance(look(hyperscale, hyperscale.good), Linked)
    disconnect(hyperscale, hyperscale.good)
    assert hyperscale.volume.loop is None


def test_twenty_are_connected_at_the_same_time(
    hyperscale: HyperScaleRig, linux: Linux, tmp_path: Path
) -> None:
    """Nobody goes on before all are there: who waited for another would wait for ever."""
    volumes = [hyperscale.product.volume() for _ in range(20)]
    gate = tmp_path / "gate"
    hyperscale.product.command(gate=str(gate))
    patient = type(hyperscale.backend)(linux, hyperscale.locks, deadline=300)
    before = len(hyperscale.product.calls())
    with ThreadPoolExecutor(20) as pool:
        given = [patient.parse(volume.connection()) for volume in volumes]
        connecting = [pool.submit(patient.connect, each) for each in given]
        until(lambda: len(hyperscale.product.calls()) == before + 20, 200)
        assert not any(volume.loop for volume in volumes)
        gate.touch()
        for each in connecting:
            each.result()
        assert all(volume.loop is not None for volume in volumes)
        hyperscale.product.command()
        list(pool.map(patient.disconnect, given))
    assert [volume.loop for volume in volumes] == [None] * 20


def test_a_hung_hscli_delays_no_other_volume(hyperscale: HyperScaleRig, linux: Linux) -> None:
    hyperscale.volume.command(hang=True)
    impatient = type(hyperscale.backend)(linux, hyperscale.locks, deadline=5)
    with ThreadPoolExecutor(1) as pool:
        hung = pool.submit(impatient.connect, impatient.parse(hyperscale.good))
        calls = hyperscale.product.directory / "calls.jsonl"
        until(lambda: hyperscale.volume.name in calls.read_text())
        connect(hyperscale, hyperscale.other)
        disconnect(hyperscale, hyperscale.other)
        assert isinstance(look(hyperscale, hyperscale.good), Unknown)
        assert not hung.done()
        with pytest.raises(Uncertain, match="os-brick did not answer within 5 s"):
            hung.result()
    hyperscale.volume.command()
    until_known(hyperscale)
    connect(hyperscale, hyperscale.good)
    disconnect(hyperscale, hyperscale.good)


# --- kill -9 of the processes in between ---


@pytest.fixture
def apart(lab: Path, tmp_path: Path) -> Iterator[HyperScaleRig]:
    """With a warm process of its own, which a test may kill."""
    host = Linux()
    rig = HyperScaleRig(HyperScale(lab), host, tmp_path)
    yield rig
    rig.tear_down()
    host.close()


@pytest.mark.parametrize(
    ("victim", "change"),
    [
        ("warm process", "connect"),
        ("warm process", "disconnect"),
        ("fork", "connect"),
        ("hscli", "disconnect"),
    ],
)
def test_whichever_process_is_killed_the_next_look_finds_the_truth(
    apart: HyperScaleRig, change: str, victim: str
) -> None:
    hyperscale = apart
    before = hyperscale.world()
    if change == "disconnect":
        connect(hyperscale, hyperscale.good)
    slow = {"slow" if victim == "hscli" else "slow_after": 0.4}  # before the deed, or after it
    hyperscale.volume.command(**(slow if change == "connect" else {"disconnect_volume": slow}))
    began = len(hyperscale.product.calls())
    with ThreadPoolExecutor(1) as pool:
        act = connect if change == "connect" else disconnect
        under_way = pool.submit(act, hyperscale, hyperscale.good)
        until(lambda: len(hyperscale.product.calls()) > began)
        os.kill(family(hyperscale)[victim], signal.SIGKILL)
        with pytest.raises((Failed, Uncertain)):
            under_way.result(timeout=10)
    hyperscale.volume.command()
    link = until_known(hyperscale)
    happened = victim != "hscli"  # which was let finish, if it was not the victim
    assert isinstance(link, Linked if happened is (change == "connect") else Unlinked)
    act(hyperscale, hyperscale.good)
    assert (hyperscale.volume.loop is not None) is (change == "connect")
    disconnect(hyperscale, hyperscale.good)
    assert hyperscale.world() == before


def family(rig: HyperScaleRig) -> dict[str, int]:
    """The command that runs for the volume, the fork that started it, and that one's parent."""
    pid = rig.product.calls()[-1]["pid"]
    fork = parent(pid)
    return {"hscli": pid, "fork": fork, "warm process": parent(fork)}


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def until_known(rig: HyperScaleRig) -> object:
    until(lambda: not isinstance(look(rig, rig.good), Unknown))
    return look(rig, rig.good)


# --- os-brick as others use it ---

UNMODIFIED = """
import json, sys
from os_brick.initiator.connector import InitiatorConnector
from moorline.backends.osbrick.hyperscale_connector import register
register()
connector = InitiatorConnector.factory("veritas_hyperscale", "sudo")
properties = json.loads(sys.argv[1])
device = connector.connect_volume(properties)
assert connector.get_volume_paths(properties) == [device["path"]]
assert connector.check_valid_device(device["path"])
size = connector.extend_volume(properties)
connector.disconnect_volume(properties, device)
print(json.dumps([device, size]))
"""


def test_the_connector_works_in_an_unmodified_os_brick_as_root(hyperscale: HyperScaleRig) -> None:
    in_process = "from os_brick import privileged; privileged.default.set_client_mode(False)"
    told = run_connector(in_process + UNMODIFIED, hyperscale, [])
    assert told[0]["refl_targets"] == "192.0.2.3,192.0.2.4"
    assert told == [{**told[0], "path": str(hyperscale.volume.device)}, 16 << 20]
    assert hyperscale.volume.loop is None


def run_connector(code: str, rig: HyperScaleRig, prefix: list[str]) -> Any:
    import json
    import sys

    done = subprocess.run(
        [*prefix, sys.executable, "-c", code, json.dumps(rig.good["data"])],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
