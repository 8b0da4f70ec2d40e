"""Stand-in for Veritas HyperScale's command: ``hscli '<JSON>'``.

Known, from the clients that OpenStack had until 2020 (os-brick
``initiator/connectors/vrtshyperscale.py`` and its tests; Cinder
``volume/drivers/veritas/utils.py``, ``hs_constants.py``):

- One argument, a JSON object, as root: ``{"operation": "connect_volume", "volume_guid":
  "{GUID}"}``, ``disconnect_volume`` alike; ``{"operation": "version"}``, payload ``1.0.0``;
  ``{"operation": "get_volume_path", "image_id": ID}``, whose payload is a path; Cinder
  gave it the id of an image.
- Connecting has succeeded if it exits 0, stderr is empty and stdout is
  ``{"payload": {"vsa_ip": …, "refl_factor": …, "refl_targets": "IP,IP"}}``, all texts.
- Errors: ``{"err_code": N, "err_msg": …, "token": OPERATION}`` on stdout; 1 is an error, 10 a
  bad parameter, 106 a bad message.
- The device of ``{8ee71c33-dcd0-4267-8f2b-e0742ecabe9f}`` is
  ``/dev/8ee71c33-dcd0-4267-8f2b-e0742ec``: 31 characters of the GUID.

Assumed, because nothing public says so: that the device is a node made last and removed
first; that both operations clear away the node of a device that has died; that
get_volume_path takes the name that connect_volume takes as well, answers the device, and is
an error for a volume that is not connected; that connecting what is connected is success,
disconnecting what is not is error 1, and so is disconnecting what somebody has open; exit
code 1 and a text on stderr for who is not root; and, as the worst that is possible, that of
two volumes whose 31 characters are equal the second is "connected" with the first one's
device in place.

``volumes/NAME`` in the lab's ``hyperscale`` directory is a volume, a file that becomes a
loop device. ``control.json`` (see standin.py) maps the volume's name to the behaviour of
connect_volume; beneath ``disconnect_volume`` and ``get_volume_path`` to that of those. It
also takes ``answer``: ``{"stdout", "stderr", "code"}``, printed instead after the deed, and
``payload``, which replaces fields of the payload (null: leaves them out).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab import loops
from lab.standin import Failure, Product, Settings, act, run

VERSION = "1.0.0"
VSA_IP, REFLECTION_TARGETS = "192.0.2.2", "192.0.2.3,192.0.2.4"
ERROR, BAD_PARAMETER, BAD_MESSAGE = 1, 10, 106
DEVICES = Path("/dev")


class Refusal(Exception):
    """The command ran, and says in its answer that it did not do it."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def command() -> None:
    run(_command)


def device_of(guid: str) -> Path:
    """Where the protocol has the device of a volume."""
    return DEVICES / guid[1:32]


def _command(argv: list[str]) -> None:
    product = Product("hyperscale")
    product.note(["hscli", *argv])
    if os.geteuid():
        raise Failure(1, "only root may do this")
    token = ""
    try:
        message = _message(argv)
        token = message["operation"]
        answer = _operate(product, message)
    except Refusal as e:
        answer = {"err_code": e.code, "err_msg": str(e), "token": token}
    if "raw" in answer:
        print(answer["raw"].get("stdout", ""), end="")
        print(answer["raw"].get("stderr", ""), end="", file=sys.stderr)
        sys.exit(answer["raw"].get("code", 0))
    if answer:
        print(json.dumps(answer))


def _message(argv: list[str]) -> dict[str, Any]:
    try:
        (text,) = argv
        message = json.loads(text)
    except ValueError as e:
        raise Refusal(BAD_MESSAGE, f"not one JSON message: {e}") from e
    if not isinstance(message, dict) or not isinstance(message.get("operation"), str):
        raise Refusal(BAD_MESSAGE, "the message has no operation")
    return message


def _operate(product: Product, message: dict[str, Any]) -> dict[str, Any]:
    operation = message["operation"]
    if operation == "version":
        return {"payload": VERSION}
    field = "image_id" if operation == "get_volume_path" else "volume_guid"
    name = message.get(field)
    known: dict[str, Callable[[Product, str], dict[str, Any]]] = {
        "connect_volume": _connect,
        "disconnect_volume": _disconnect,
        "get_volume_path": _path,
    }
    if operation not in known:
        raise Refusal(BAD_PARAMETER, f"no operation {operation}")
    if not isinstance(name, str) or not name or "/" in name:
        raise Refusal(BAD_PARAMETER, f"no {field}")
    control = product.control(name)
    if operation != "connect_volume":
        control = control.get(operation, {})
    answer: dict[str, Any] = {} if operation == "disconnect_volume" else {"payload": _payload()}

    def deed() -> None:
        answer.update(known[operation](product, name))

    act(control, deed)
    return {"raw": control["answer"]} if "answer" in control else _changed(answer, control)


def _changed(answer: dict[str, Any], control: Settings) -> dict[str, Any]:
    if "payload" in control and isinstance(answer.get("payload"), dict):
        fields = {**answer["payload"], **control["payload"]}
        answer["payload"] = {key: value for key, value in fields.items() if value is not None}
    return answer


def _payload() -> dict[str, str]:
    return {"vsa_ip": VSA_IP, "refl_factor": "2", "refl_targets": REFLECTION_TARGETS}


def _connect(product: Product, guid: str) -> dict[str, Any]:
    volume = product.directory / "volumes" / guid
    if not volume.is_file():
        raise Refusal(ERROR, f"no volume {guid}")
    number = loops.of(volume)
    if number is None:
        number = loops.attach(volume)
    _tidy(guid)
    if not device_of(guid).exists():
        loops.node(device_of(guid), number)
    return {"payload": _payload()}


def _disconnect(product: Product, guid: str) -> dict[str, Any]:
    number = loops.of(product.directory / "volumes" / guid)
    if number is None and _tidy(guid):
        return {}
    if number is None:
        raise Refusal(ERROR, f"volume {guid} is not connected")
    if loops.in_use(number):
        raise Refusal(ERROR, f"volume {guid} is in use")
    if _is_node_of(guid, number):
        device_of(guid).unlink()
    loops.detach(number)
    return {}


def _tidy(guid: str) -> bool:
    """Remove the node of a device that has died; say whether there was one."""
    path = device_of(guid)
    dead = path.is_block_device() and not loops.alive(os.minor(path.stat().st_rdev))
    if dead:
        path.unlink()
    return dead


def _path(product: Product, guid: str) -> dict[str, Any]:
    number = loops.of(product.directory / "volumes" / guid)
    if number is None or not _is_node_of(guid, number):
        raise Refusal(ERROR, f"volume {guid} is not connected")
    return {"payload": str(device_of(guid))}


def _is_node_of(guid: str, number: int) -> bool:
    try:
        return device_of(guid).stat().st_rdev == os.makedev(loops.MAJOR, number)
    except FileNotFoundError:
        return False
