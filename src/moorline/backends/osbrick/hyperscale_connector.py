"""The os-brick connector for Veritas HyperScale, for whoever uses os-brick.

::

    from moorline.backends.osbrick.hyperscale_connector import register
    register()
    InitiatorConnector.factory("veritas_hyperscale", "sudo …")

os-brick had one until 2020 (``initiator/connectors/vrtshyperscale.py``); this one
speaks the same protocol, and returns the same fields. It differs where that one was
wrong: a lock for each volume instead of one for all, errors in JSON are heeded, names
that have no device path are refused, a device of another volume is not handed out.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

from os_brick import exception, utils
from os_brick.initiator import connector as connectors
from os_brick.initiator.connectors import base
from oslo_concurrency import lockutils, processutils

from moorline.backends.osbrick.hyperscale import HyperScale, device_path
from moorline.errors import Refused

LOG = logging.getLogger(__name__)
BAD_PARAMETER, BAD_MESSAGE = 10, 106
"""hscli's codes; 1 is any other error (Cinder's ``veritas/hs_constants.py`` of 2020)."""
_ARCHITECTURES = ("x86_64", "ppc64le", "s390x")


class HyperScaleError(exception.BrickException):
    """Base of what can go wrong with a HyperScale volume."""


class BadVolume(HyperScaleError):
    """The connection does not name a HyperScale volume. Nothing was done."""


class CannotRun(HyperScaleError):
    """hscli could not be started. Nothing was done."""


class Lost(HyperScaleError):
    """hscli was killed, or what runs it for us (the privsep helper): it may have done its work."""


class TimedOut(HyperScaleError):
    """hscli did not end within os-brick's deadline (600 s unless said otherwise)."""


class CommandFailed(HyperScaleError):
    """hscli exited, and not with 0."""


class Complained(HyperScaleError):
    """hscli exited 0 and wrote to stderr, which its protocol calls a failure."""


class NoAnswer(HyperScaleError):
    """hscli exited 0 and answered nothing."""


class BadAnswer(HyperScaleError):
    """hscli's answer is not a JSON object with a payload."""


class Incomplete(HyperScaleError):
    """hscli's answer lacks a field that it must have, or the field is odd."""


class Rejected(HyperScaleError):
    """hscli answered with an error."""

    def __init__(self, operation: str, code: object, text: object) -> None:
        super().__init__(f"hscli {operation} answered error {code}: {text}")
        self.code = code


class Collision(HyperScaleError):
    """Another volume's device stands where this one's would be. Nothing was done."""


def register() -> None:
    """Add ``veritas_hyperscale`` to os-brick's mapping of protocols, on every architecture."""
    path = f"{HyperScaleConnector.__module__}.{HyperScaleConnector.__qualname__}"
    for architecture in _ARCHITECTURES:
        connectors.get_connector_mapping(architecture)[HyperScale.protocol] = path


class HyperScaleConnector(base.BaseLinuxConnector):
    """Connects HyperScale volumes by ``hscli``, which runs as root."""

    @staticmethod
    def get_connector_properties(root_helper: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """HyperScale needs to know nothing of this host."""
        return {}

    def get_search_path(self) -> None:
        """There is no directory of its volumes alone."""

    def get_volume_paths(self, connection_properties: Mapping[str, Any]) -> list[str]:
        """The device's path if it is there, and hscli does not have another for the volume."""
        name, path = _volume(connection_properties)
        return [path] if Path(path).exists() and self._told(name) in ("", path) else []

    def get_all_available_volumes(
        self, connection_properties: Mapping[str, Any] | None = None
    ) -> list[str]:
        return self.get_volume_paths(connection_properties) if connection_properties else []

    @utils.trace
    def connect_volume(self, connection_properties: Mapping[str, Any]) -> dict[str, str]:
        """Connect it; return ``path``, ``vsa_ip``, ``refl_factor`` and ``refl_targets``.

        ``refl_targets`` is there if ``refl_factor`` is not 0. Connected already is
        success. Raises HyperScaleError; after other kinds than BadVolume, CannotRun
        and Collision it may be connected nevertheless.
        """
        name, path = _volume(connection_properties)
        with _locked(name):
            if Path(path).exists() and self._told(name) not in ("", path):
                raise Collision(f"{path} is there, and hscli says that it is not {name}")
            payload = _reflection(self._hscli("connect_volume", volume_guid=name))
        return {"type": "block", "path": path, **payload}

    @utils.trace
    def disconnect_volume(
        self,
        connection_properties: Mapping[str, Any],
        device_info: Mapping[str, Any] | None = None,
        force: bool = False,
        ignore_errors: bool = False,
    ) -> None:
        """Flush and disconnect it.

        hscli's own error is none where neither /dev nor hscli has a device of it.

        *force*: disconnect even if flushing failed. *ignore_errors*: with
        *force*, do not raise in the end what went wrong. Raises HyperScaleError,
        ProcessExecutionError (flushing).
        """
        name, path = _volume(connection_properties)
        errors = exception.ExceptionChainer()
        with _locked(name):
            with errors.context(force, "Flushing %s failed", path):
                self._linuxscsi.flush_device_io(path)
            with errors.context(force, "Disconnecting %s failed", path):
                self._disconnect(name, path)
        if errors and not ignore_errors:
            raise errors

    @utils.trace
    def extend_volume(self, connection_properties: Mapping[str, Any]) -> int | None:
        """The size that the device has now: hscli has no operation to refresh it."""
        _, path = _volume(connection_properties)
        if not Path(path).exists():
            raise exception.VolumeDeviceNotFound(device=path)
        size: int | None = utils.get_device_size(self, path)
        return size

    def _disconnect(self, name: str, path: str) -> None:
        try:
            self._hscli("disconnect_volume", volume_guid=name)
        except Rejected as e:
            if Path(path).exists() or self._told(name) == path:
                raise
            LOG.warning("%s was not connected: %s", name, e)

    def _told(self, name: str) -> str:
        """The path that hscli has for a volume; '' if it does not tell.

        That get_volume_path takes a volume's name is an assumption (Cinder gave it
        the id of an image), so what it does not answer proves nothing.
        """
        try:
            payload = self._hscli("get_volume_path", image_id=name)["payload"]
        except HyperScaleError as e:
            LOG.debug("hscli does not tell the path of %s: %s", name, e)
            return ""
        return payload if isinstance(payload, str) else ""

    def _hscli(self, operation: str, **fields: str) -> Mapping[str, Any]:
        """What hscli answers to *operation*. Raises HyperScaleError."""
        message = json.dumps({"operation": operation, **fields})
        try:
            out, err = self._execute(
                "hscli", message, run_as_root=True, root_helper=self._root_helper
            )
        except processutils.ProcessExecutionError as e:
            raise _failure(operation, e) from e
        if err:
            raise Complained(f"hscli {operation} exited 0, and said: {_shown(err)}")
        return _answer(operation, out)


def not_started(e: processutils.ProcessExecutionError) -> bool:
    """Whether the command was not even started: os-brick's executor keeps that as the context."""
    return isinstance(e.__cause__ or e.__context__, FileNotFoundError | PermissionError)


def _volume(properties: Mapping[str, Any]) -> tuple[str, str]:
    """The volume's name and its device's path. Raises BadVolume."""
    name = properties.get("name")
    if not isinstance(name, str):
        raise BadVolume("the connection has no name")
    try:
        return name, str(device_path(name))
    except Refused as e:
        raise BadVolume(str(e)) from e


def _locked(name: str) -> AbstractContextManager[Any]:
    """One at a time for each volume; a hung one holds up no other."""
    return cast("AbstractContextManager[Any]", lockutils.lock(f"hyperscale-{name}", "os-brick-"))


def _failure(operation: str, e: processutils.ProcessExecutionError) -> HyperScaleError:
    if isinstance(e, exception.ExecutionTimeout):
        return TimedOut(f"hscli {operation} did not end in time")
    if not_started(e):
        return CannotRun(f"hscli cannot be run: {_shown(e.description or str(e))}")
    if not isinstance(e.exit_code, int) or e.exit_code < 0:
        return Lost(f"hscli {operation} came to no end: {_shown(e.description or str(e))}")
    said = f": {_shown(e.stderr)}" if e.stderr else ""
    return CommandFailed(f"hscli {operation} exited {e.exit_code}{said}")


def _answer(operation: str, out: str | None) -> Mapping[str, Any]:
    if not out or not out.strip():
        if operation == "disconnect_volume":
            return {}  # its protocol asks for no more than exit 0
        raise NoAnswer(f"hscli {operation} answered nothing")
    try:
        answer = json.loads(out)
    except ValueError as e:
        raise BadAnswer(f"hscli {operation} answered no JSON: {_shown(out)}") from e
    if not isinstance(answer, dict):
        raise BadAnswer(f"hscli {operation} answered no JSON object: {_shown(out)}")
    if answer.get("err_code"):
        raise Rejected(operation, answer["err_code"], _shown(str(answer.get("err_msg"))))
    if "payload" not in answer and operation != "disconnect_volume":
        raise BadAnswer(f"hscli {operation} answered no payload: {_shown(out)}")
    return answer


def _reflection(answer: Mapping[str, Any]) -> dict[str, str]:
    """How a connected volume is reflected. Raises BadAnswer, Incomplete."""
    payload = answer["payload"]
    if not isinstance(payload, dict):
        raise BadAnswer("hscli connect_volume answered a payload that is no object")
    try:
        factor = int(_field(payload, "refl_factor"))
    except ValueError as e:
        raise Incomplete("hscli connect_volume answered a refl_factor that is no number") from e
    found = {"vsa_ip": _field(payload, "vsa_ip"), "refl_factor": str(factor)}
    if factor > 0:
        found["refl_targets"] = _field(payload, "refl_targets")
    return found


def _field(payload: Mapping[str, Any], name: str) -> str:
    value = payload.get(name)
    if not isinstance(value, str | int) or value == "":
        raise Incomplete(f"hscli connect_volume answered no {name}")
    return str(value)


def _shown(text: str) -> str:
    return " ".join(text.split())[:300]
