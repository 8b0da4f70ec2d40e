"""Cinder as a :class:`~moorline.ports.volume_service.VolumeService`, by openstacksdk.

That is imported when Cinder is first asked something: pip install 'moorline[cinder]'. The
credentials are OpenStack's usual ones: clouds.yaml, or OS_ variables of the environment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from moorline.deadline import callers_patience
from moorline.errors import (
    Denied,
    Failed,
    MoorlineError,
    NotFound,
    Refused,
    Unavailable,
    Uncertain,
)
from moorline.model import GuestId, VolumeId, as_uuid, is_uuid, volume_id
from moorline.ports import Option
from moorline.ports.volume_service import ServiceAttachment, ServiceVolume
from moorline.secret import Secret

CLOUD = Option(
    "cinder_cloud",
    "",
    "Which cloud of clouds.yaml has Cinder. Default: OS_CLOUD, or the other OS_ variables.",
    group="moorline",
)
OPTIONS = (CLOUD,)
MICROVERSION = "3.44"
"""The first that completes attachments: Cinder of OpenStack Queens (2018)."""
REQUEST_SECONDS = 60.0
"""How long Cinder may be silent; its driver talks to the storage meanwhile."""
_LEAST_SECONDS = 5.0
_TYPE = "block-storage"
_HINT = "credentials come from clouds.yaml or OS_ variables; see docs/cinder.md"

Connector = Callable[[str], Mapping[str, Any]]
"""What this host is to storage, if the service is reached at that host."""


class Cinder:
    """Cinder's volumes and attachments. Thread-safe.

    *cloud*: of clouds.yaml; '' where the environment says which.
    """

    def __init__(self, cloud: str, connector: Connector) -> None:
        self._connector = connector
        try:
            from keystoneauth1 import exceptions
            from keystoneauth1.adapter import Adapter
            from openstack.config import OpenStackConfig
            from openstack.exceptions import ConfigException
        except ImportError as e:
            raise Refused(
                f"Cinder needs what is not installed here: {e.name}",
                hint="pip install 'moorline[cinder]'",
            ) from e
        self._exceptions = exceptions
        try:
            region = OpenStackConfig().get_one(cloud or None)
            self._session = region.get_session()
            self._session.timeout = self._session.timeout or REQUEST_SECONDS
            self._client = Adapter(
                self._session,
                service_type=_TYPE,
                interface=region.get_interface(_TYPE),
                region_name=region.get_region_name(_TYPE),
                endpoint_override=region.get_endpoint(_TYPE),
            )
        except (ConfigException, exceptions.ClientException) as e:
            raise Refused(f"Cinder's cloud cannot be told: {_said(e)}", hint=_HINT) from e

    def project(self) -> str:
        with self._told(asks=True):
            return str(self._session.get_project_id() or "")

    def find(self, volume: str) -> VolumeId:
        if id := as_uuid(volume):
            return self.volume(VolumeId(id)).id
        found = self._get("/volumes", name=volume).get("volumes", [])
        found = [each for each in found if each.get("name") == volume]
        if not found:
            raise NotFound(f"Cinder has no volume {volume[:80]} for this project")
        if len(found) > 1:
            ids = ", ".join(sorted(str(each.get("id")) for each in found))
            raise Refused(f"several volumes are called {volume}", hint=f"by its id: {ids}")
        return self._id(found[0])

    def volume(self, id: VolumeId) -> ServiceVolume:
        try:
            its = self._get(f"/volumes/{id}").get("volume")
        except NotFound:
            raise NotFound(f"Cinder has no volume {id} for this project") from None
        if not isinstance(its, dict):
            raise Unavailable("Cinder's answer has no volume in it")
        return ServiceVolume(
            self._id(its),
            str(its.get("status", "")),
            multiattach=its.get("multiattach") is True,
            encrypted=its.get("encrypted") is True,
            size=_gib(its.get("size")) << 30,
        )

    def extend(self, id: VolumeId, gib: int) -> None:
        # No os-extend_volume_completion (3.71): none of Cinder's own drivers (29) leaves a deed to
        # others so, and it is an administrator's.
        self._change("POST", f"/volumes/{id}/action", {"os-extend": {"new_size": gib}})

    def attachments(self, volume: VolumeId, guest: GuestId) -> Sequence[ServiceAttachment]:
        # An administrator, as whom a host of Nova's is switched, is shown his own project's alone
        # unless he says so; others may not say it.
        with self._told(asks=True):
            all_of_them = {"all_tenants": "1"} if "admin" in self._roles() else {}
        told = self._get("/attachments/detail", volume_id=volume, instance_id=guest, **all_of_them)
        found = told.get("attachments")
        if not isinstance(found, list):
            raise Unavailable("Cinder's answer has no attachments in it")
        return [
            _attachment(each)
            for each in found
            if each.get("volume_id") == volume and each.get("instance") == guest
        ]

    def attachment(self, id: str) -> ServiceAttachment | None:
        try:
            return _attachment(self._get(f"/attachments/{id}")["attachment"])
        except NotFound:
            return None

    def reserve(self, volume: VolumeId, guest: GuestId) -> str:
        # Without a connector: that asks no storage, so that its answer is there at once. From then
        # on all is said of an id.
        asked = {"attachment": {"volume_uuid": volume, "instance_uuid": guest}}
        told = self._change("POST", "/attachments", asked)
        try:
            id = str(told["attachment"]["id"])
        except (KeyError, TypeError):
            id = ""
        if not is_uuid(id):
            raise Uncertain("Cinder made an attachment and did not say which")
        return id

    def connect(self, id: str, *, readonly: bool) -> None:
        with self._told(asks=True):
            endpoint = self._client.get_endpoint() or ""
        connector = {
            **self._connector(urlsplit(endpoint).hostname or ""),
            "mode": "ro" if readonly else "rw",
        }
        self._change("PUT", f"/attachments/{id}", {"attachment": {"connector": connector}})

    def complete(self, id: str) -> None:
        self._change("POST", f"/attachments/{id}/action", {"os-complete": None})

    def release(self, id: str) -> None:
        try:
            self._change("DELETE", f"/attachments/{id}", None)
        except NotFound:
            return

    def _id(self, volume: Mapping[str, Any]) -> VolumeId:
        if (id := volume_id(volume.get("id"))) is None:
            raise Unavailable("Cinder's answer has no volume in it")
        return id

    def _get(self, path: str, **query: str) -> Mapping[str, Any]:
        with self._told(asks=True):
            answer = self._client.get(
                path, params=query, microversion=MICROVERSION, timeout=_seconds()
            )
            told = answer.json()
        if not isinstance(told, dict):
            raise Unavailable("Cinder's answer is not what it should be")
        return told

    def _change(self, method: str, path: str, body: Mapping[str, Any] | None) -> Mapping[str, Any]:
        with self._told(asks=True):
            self._session.get_token()  # what goes wrong here changes nothing
            headers = self._as_service()
        with self._told(asks=False):
            answer = self._client.request(
                path,
                method,
                json=body,
                headers=headers,
                microversion=MICROVERSION,
                timeout=_seconds(),
            )
            told = answer.json() if answer.content else {}
        return told if isinstance(told, dict) else {}

    def _as_service(self) -> dict[str, str]:
        """As a service Cinder does not ask Nova whether an instance still has the volume."""
        token = str(self._session.get_token())
        return {"X-Service-Token": token} if "service" in self._roles() else {}

    def _roles(self) -> Sequence[str]:
        auth: Any = self._session.auth
        return list(auth.get_access(self._session).role_names)

    @contextmanager
    def _told(self, *, asks: bool) -> Iterator[None]:
        """Turn its errors into ours. *asks*: nothing is changed by what is done within."""
        vague = Unavailable if asks else Uncertain
        try:
            yield
        except MoorlineError:
            raise
        except self._exceptions.HttpError as e:
            family = _family(e.http_status, vague)
            raise family(f"Cinder: {_said(e)}", hint=_HINT if family is Denied else "") from None
        except (
            self._exceptions.MissingAuthPlugin,
            self._exceptions.AuthPluginException,
            self._exceptions.AuthorizationFailure,
        ) as e:
            raise Denied(f"Cinder cannot be asked: {_said(e)}", hint=_HINT) from None
        except self._exceptions.CatalogException as e:
            raise Refused(f"this cloud has no Cinder: {_said(e)}", hint=_HINT) from None
        except (self._exceptions.ClientException, ValueError, KeyError) as e:
            raise vague(f"Cinder does not answer: {_said(e)}") from None


def _gib(told: object) -> int:
    """Raises Unavailable."""
    if not isinstance(told, int):
        raise Unavailable("Cinder's answer does not say how large the volume is")
    return told


def _seconds() -> float:
    return min(REQUEST_SECONDS, callers_patience(_LEAST_SECONDS))


def _family(status: int, vague: type[MoorlineError]) -> type[MoorlineError]:
    if status in (401, 403):
        return Denied
    if status == 404:
        return NotFound
    if status in (409, 413, 429):
        return Failed  # it is at something else with the volume, or at too much
    return Refused if 400 <= status < 500 else vague


def _said(error: Exception) -> str:
    text = _message(getattr(error, "response", None)) or str(error)
    return " ".join(text.split())[:300]


def _message(response: Any) -> str:
    """What Cinder says of an error: ``{"badRequest": {"message": …}}``; ''."""
    try:
        [told] = response.json().values()
        return str(told["message"])
    except (AttributeError, KeyError, TypeError, ValueError):
        return ""


def _attachment(told: Mapping[str, Any]) -> ServiceAttachment:
    """Raises KeyError: it is none."""
    flat = told.get("connection_info") or {}
    kind = flat.get("driver_volume_type")
    connection: Secret[Mapping[str, Any]] | None = None
    if kind:
        # As Nova writes it: the driver's fields in "data", and which volume it is.
        data = {name: value for name, value in flat.items() if name != "driver_volume_type"}
        connection = Secret(
            {"driver_volume_type": kind, "data": {**data, "volume_id": told["volume_id"]}}
        )
    return ServiceAttachment(str(told["id"]), told.get("status") == "attached", connection)
