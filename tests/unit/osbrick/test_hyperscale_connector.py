"""The os-brick connector for HyperScale, with an ``hscli`` that answers what a test wants."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from os_brick import exception
from os_brick.initiator import connector as connectors
from os_brick.initiator.connector import InitiatorConnector
from oslo_concurrency.processutils import ProcessExecutionError

from moorline.backends.osbrick import hyperscale_connector as hyperscale
from moorline.backends.osbrick.hyperscale_connector import HyperScaleConnector, register

NAME = "{8ee71c33-dcd0-4267-8f2b-e0742ecabe9f}"
PATH = "/dev/8ee71c33-dcd0-4267-8f2b-e0742ec"
PAYLOAD = {"vsa_ip": "192.0.2.2", "refl_factor": "2", "refl_targets": "192.0.2.3,192.0.2.4"}
Answers = dict[str, Any]


class Hscli:
    """Answers an operation with stdout, (stdout, stderr), an exception, or what a function does."""

    def __init__(self, **answers: Any) -> None:
        self.answers = {
            "connect_volume": said(PAYLOAD),
            "disconnect_volume": "",
            "get_volume_path": error(1),
            **answers,
        }
        self.messages: list[dict[str, Any]] = []
        self.options: list[dict[str, Any]] = []

    def __call__(self, *command: str, **options: Any) -> tuple[str, str]:
        program, message = command
        assert program == "hscli"
        self.options.append(options)
        self.messages.append(json.loads(message))
        answer = self.answers[self.messages[-1]["operation"]]
        if callable(answer):
            answer = answer()
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, tuple) else (answer, "")

    def operations(self) -> list[str]:
        return [message["operation"] for message in self.messages]


def said(payload: Any) -> str:
    return json.dumps({"payload": payload})


def error(code: int) -> str:
    return json.dumps({"err_code": code, "err_msg": "no", "token": "t"})


def connector(hscli: Callable[..., Any]) -> HyperScaleConnector:
    return HyperScaleConnector("sudo", execute=hscli)


def test_the_factory_of_os_brick_makes_it_on_every_architecture() -> None:
    with pytest.raises(exception.InvalidConnectorProtocol):
        InitiatorConnector.factory("no_such_protocol", "sudo")
    register()
    register()
    for arch in ("x86_64", "ppc64le", "s390x"):
        made = InitiatorConnector.factory("veritas_hyperscale", "sudo", arch=arch)
        assert type(made) is HyperScaleConnector
    assert connectors.get_connector_mapping()["ISCSI"], "the others are still there"


def test_connecting_asks_once_as_root_and_tells_the_reflection() -> None:
    hscli = Hscli()
    device = connector(hscli).connect_volume({"name": NAME, "export": "hyperscale-sv:/hyperscale"})
    assert device == {"type": "block", "path": PATH, **PAYLOAD}
    assert hscli.messages == [{"operation": "connect_volume", "volume_guid": NAME}]
    assert hscli.options == [{"run_as_root": True, "root_helper": "sudo"}]


@pytest.mark.parametrize("factor", ["0", 0])
def test_without_reflection_no_targets_are_needed(factor: Any) -> None:
    payload = {"vsa_ip": "192.0.2.2", "refl_factor": factor}
    device = connector(Hscli(connect_volume=said(payload))).connect_volume({"name": NAME})
    assert device == {"type": "block", "path": PATH, "vsa_ip": "192.0.2.2", "refl_factor": "0"}


def without(*fields: str, **other: Any) -> str:
    return said({k: v for k, v in {**PAYLOAD, **other}.items() if k not in fields})


def not_run(error: OSError) -> ProcessExecutionError:
    """What os-brick's own executor makes of an OSError."""
    try:
        try:
            raise error
        except OSError as e:
            raise ProcessExecutionError(cmd="hscli", description=str(e))  # noqa: B904
    except ProcessExecutionError as e:
        return e


CONNECT_FAILURES = {
    "not installed": (not_run(FileNotFoundError("hscli")), "CannotRun"),
    "not allowed": (not_run(PermissionError("hscli")), "CannotRun"),
    "the helper died": (not_run(OSError("Premature eof")), "Lost"),
    "nobody knows": (ProcessExecutionError(), "Lost"),
    "time-out": (exception.ExecutionTimeout(stderr="Time out on proc 7"), "TimedOut"),
    "exit code": (ProcessExecutionError(exit_code=3, stderr="broken"), "CommandFailed"),
    "killed": (ProcessExecutionError(exit_code=-9), "Lost"),
    "stderr": ((said(PAYLOAD), "a warning"), "Complained"),
    "empty": ("", "NoAnswer"),
    "blank": (" \n", "NoAnswer"),
    "no JSON": ("connected.", "BadAnswer"),
    "no object": ("[]", "BadAnswer"),
    "no payload": ("{}", "BadAnswer"),
    "payload of text": (said("yes"), "BadAnswer"),
    "null payload": (said(None), "BadAnswer"),
    "error 1": (error(1), "Rejected"),
    "error 10": (error(10), "Rejected"),
    "error 106": (error(106), "Rejected"),
    "no vsa_ip": (without("vsa_ip"), "Incomplete"),
    "empty vsa_ip": (without(vsa_ip=""), "Incomplete"),
    "odd vsa_ip": (without(vsa_ip=["192.0.2.2"]), "Incomplete"),
    "no refl_factor": (without("refl_factor"), "Incomplete"),
    "odd refl_factor": (without(refl_factor="two"), "Incomplete"),
    "no refl_targets": (without("refl_targets"), "Incomplete"),
    "empty refl_targets": (without(refl_targets=""), "Incomplete"),
}


@pytest.mark.parametrize(("answer", "kind"), CONNECT_FAILURES.values(), ids=CONNECT_FAILURES)
def test_every_failure_to_connect_is_told_apart(answer: Any, kind: str) -> None:
    with pytest.raises(exception.BrickException) as raised:
        connector(Hscli(connect_volume=answer)).connect_volume({"name": NAME})
    assert type(raised.value) is getattr(hyperscale, kind)
    assert "hscli" in str(raised.value)


@pytest.mark.parametrize(
    "name",
    [
        None,
        7,
        "",
        "8ee71c33-dcd0-4267-8f2b-e0742ecabe9f",
        "volume-8ee71c33-dcd0-4267-8f2b-e0742ecabe9f",
        "{volume-8ee71c33-dcd0-4267-8f2b-e0742ecabe9f}",
        "{8EE71C33-DCD0-4267-8F2B-E0742ECABE9F}",
        "{8ee71c33-dcd0-4267-8f2b-e0742ecabe9f}\n",
        "{../../../../../etc/passwd-00000000000}",
        "-ee71c33-dcd0-4267-8f2b-e0742ecabe9f}",
    ],
)
def test_names_without_a_device_path_are_refused_before_anything_is_run(name: Any) -> None:
    hscli = Hscli()
    properties = {} if name is None else {"name": name}
    for method in ("connect_volume", "disconnect_volume", "get_volume_paths", "extend_volume"):
        with pytest.raises(hyperscale.BadVolume):
            getattr(connector(hscli), method)(properties)
    assert hscli.messages == []


# --- disconnecting ---


DISCONNECT_FAILURES = {
    "exit code": (ProcessExecutionError(exit_code=1, stderr="busy"), "CommandFailed"),
    "stderr": (("", "busy"), "Complained"),
    "error": (error(1), "Rejected"),
    "no JSON": ("done?", "BadAnswer"),
}


@pytest.mark.parametrize(("answer", "kind"), DISCONNECT_FAILURES.values(), ids=DISCONNECT_FAILURES)
def test_errors_of_disconnecting_are_not_swallowed(answer: Any, kind: str) -> None:
    hscli = Hscli(disconnect_volume=answer, get_volume_path=said(PATH))
    with pytest.raises(getattr(hyperscale, kind)):
        connector(hscli).disconnect_volume({"name": NAME}, {})
    assert hscli.messages[0] == {"operation": "disconnect_volume", "volume_guid": NAME}


@pytest.mark.parametrize("answer", ["", "{}", said("ok")])
def test_disconnecting_needs_no_answer(answer: str) -> None:
    hscli = Hscli(disconnect_volume=answer)
    connector(hscli).disconnect_volume({"name": NAME}, {})
    assert hscli.messages == [{"operation": "disconnect_volume", "volume_guid": NAME}]


@pytest.mark.parametrize("look", [error(1), error(10), ("", "hm"), "", said(None), said([PATH])])
def test_what_has_no_device_and_no_path_is_disconnected(look: Any) -> None:
    hscli = Hscli(disconnect_volume=error(1), get_volume_path=look)
    connector(hscli).disconnect_volume({"name": NAME}, None)
    assert hscli.messages[1] == {"operation": "get_volume_path", "image_id": NAME}


def test_force_raises_in_the_end_and_ignore_errors_does_not() -> None:
    hscli = Hscli(disconnect_volume=error(1), get_volume_path=said(PATH))
    with pytest.raises(exception.ExceptionChainer):
        connector(hscli).disconnect_volume({"name": NAME}, {}, force=True)
    connector(hscli).disconnect_volume({"name": NAME}, {}, force=True, ignore_errors=True)
    with pytest.raises(hyperscale.Rejected):  # os-brick: it has a meaning with force alone
        connector(hscli).disconnect_volume({"name": NAME}, {}, ignore_errors=True)


# --- the rest ---


def test_there_are_no_paths_of_what_is_not_there() -> None:
    assert connector(Hscli()).get_volume_paths({"name": NAME}) == []
    assert connector(Hscli()).get_all_available_volumes({"name": NAME}) == []
    assert connector(Hscli()).get_all_available_volumes() == []
    with pytest.raises(exception.VolumeDeviceNotFound):
        connector(Hscli()).extend_volume({"name": NAME})


def test_its_properties_are_none_and_harm_no_others() -> None:
    properties = {"multipath": False, "enforce_multipath": False, "host": "h", "execute": None}
    assert HyperScaleConnector.get_connector_properties("sudo", **properties) == {}


def test_a_hung_volume_holds_up_itself_and_no_other() -> None:
    other = "{9ee71c33-dcd0-4267-8f2b-e0742ecabe9f}"
    hung, go, done = threading.Event(), threading.Event(), threading.Event()

    def hang() -> str:
        hung.set()
        assert go.wait(10)
        return said(PAYLOAD)

    def again() -> None:
        connector(Hscli()).connect_volume({"name": NAME})
        done.set()

    slow = connector(Hscli(connect_volume=hang))
    first = threading.Thread(target=slow.connect_volume, args=[{"name": NAME}])
    first.start()
    assert hung.wait(10)
    second = threading.Thread(target=again)
    second.start()
    connector(Hscli()).connect_volume({"name": other})
    assert not done.wait(0.1), "one at a time for a volume"
    go.set()
    first.join(10)
    second.join(10)
    assert done.is_set()


def test_it_is_where_the_packages_entry_says() -> None:
    path = connectors.get_connector_mapping()["VERITAS_HYPERSCALE"]
    assert path == "moorline.backends.osbrick.hyperscale_connector.HyperScaleConnector"
    assert not Path(PATH).exists(), "these tests touch no device"
