"""A stand-in for keystone and Cinder: what a client of volumes and attachments sees of them.

Known, from Cinder's source (cinder/volume/api.py, cinder/api/v3/attachments.py, cinder/volume/
manager.py) and its api-ref, microversions 3.27 (attachments) and 3.44 (os-complete):

- ``POST /attachments`` reserves. The volume's status must be ``available``, or ``in-use`` where it
  is multi-attach; else 400, but for one that the same instance has already: that gets another one.
- ``PUT`` gives it the host's connector. A second host's of a volume that is not multi-attach: 409;
  a volume in an error state: 409. Errors of the volume service are a 500, after which the
  attachment is there, and may have been given its connection.
- ``os-extend`` is a 202, from 3.42 on of a volume in use too: its status is ``extending``, then
  ``in-use`` with the new size, or ``error_extending``; Cinder tells Nova, if there is one.
- ``os-complete`` is a 204, in any state of the volume.
- ``DELETE`` is a 200 with the attachments that are left. One that has a connection and an instance
  is asked of Nova first (CVE-2023-2088), unless the request bears a service's token: Nova knows no
  such instance, and it is allowed; there is no Nova, and it is a 500.
- the connection is flat: ``driver_volume_type`` stands beside the driver's own fields.
- ``GET /attachments`` shows those of the token's project alone, but for an administrator who asks
  for ``all_tenants``.
- errors are ``{"badRequest": {"code": 400, "message": …}}`` and alike.

Assumed: the wording of messages. What is left out: policies, quotas, everything else of Cinder.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from lab.cinder.objects import Answer, Attachment, Misbehaviour, Volume

__all__ = ["Cloud", "Volume", "environment"]

NAMES = {400: "badRequest", 401: "unauthorized", 403: "forbidden", 404: "itemNotFound"}
NAMES |= {409: "conflictingRequest", 500: "computeFault", 503: "serviceUnavailable"}


@dataclass
class Cloud:
    """Keystone and Cinder, from ``with`` to its end, on loopback."""

    volumes: dict[str, Volume] = field(default_factory=dict)
    attachments: dict[str, Attachment] = field(default_factory=dict)
    misbehaving: list[Misbehaviour] = field(default_factory=list)
    has_nova: bool = True
    roles: list[str] = field(default_factory=lambda: ["member"])
    project: str = "5f705c0a0a5e4b0fae4d6e2c2b4dd3e1"
    password: str = "right"
    calls: list[tuple[str, str]] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> Cloud:
        cloud = self

        class Handler(_Handler):
            its = cloud

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=[0.02], daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add(self, name: str, connection: Mapping[str, Any], **more: Any) -> Volume:
        """Make a volume."""
        volume = Volume(str(uuid.uuid4()), name, dict(connection), **more)
        self.volumes[volume.id] = volume
        return volume

    def of(self, volume: Volume) -> list[Attachment]:
        """Its attachments."""
        return [each for each in self.attachments.values() if each.volume == volume.id]

    def remove(self, volume: Volume) -> None:
        """An administrator deletes it, whoever has it."""
        del self.volumes[volume.id]
        for each in self.of(volume):
            del self.attachments[each.id]

    def misbehave(self, method: str, path: str, **how: Any) -> None:
        """See :class:`Misbehaviour`."""
        self.misbehaving.append(Misbehaviour(method, path, **how))

    def expire(self) -> None:
        """No token that was given is good any more."""
        self.tokens.clear()

    # --- what Cinder does

    def reserve(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        volume = self._volume(asked["volume_uuid"])
        instance = asked.get("instance_uuid")
        if "error" in volume.status:
            raise Answer(400, f"Invalid volume: its status is {volume.status}")
        free = ("available", "in-use") if volume.multiattach else ("available",)
        again = (
            volume.status in ("in-use", "reserved")
            and instance
            and any(each.instance == instance for each in self.of(volume))
        )
        if volume.status not in free and not again:
            raise Answer(
                400,
                f"Invalid volume: Volume {volume.id} status must be {' or '.join(free)} to reserve,"
                f" but the current status is {volume.status}.",
            )
        volume.status = volume.status if again else "reserved"
        made = Attachment(str(uuid.uuid4()), volume.id, instance)
        self.attachments[made.id] = made
        if asked.get("connector"):
            return self.update(made.id, asked["connector"])
        return _shown(made)

    def update(self, id: str, connector: dict[str, Any]) -> dict[str, Any]:
        its = self._attachment(id)
        volume = self._volume(its.volume)
        if "error" in volume.status:
            raise Answer(409, f"Volume {volume.id} has a status of {volume.status}")
        if "host" not in connector:
            raise Answer(400, "Invalid input received: Connector doesn't have required information")
        if not volume.multiattach and any(e.connection for e in self.of(volume) if e is not its):
            raise Answer(409, f"duplicate connectors detected on volume {volume.id}")
        its.connector, its.status, volume.status = dict(connector), "attaching", "attaching"
        its.connection = {
            **volume.connection,
            "attachment_id": id,
            "access_mode": connector.get("mode") or "rw",
            "encrypted": volume.encrypted,
            "qos_specs": None,
            "enforce_multipath": False,
        }
        return _shown(its)

    def extend(self, volume: Volume, size: int) -> None:
        if volume.status not in ("available", "in-use"):
            raise Answer(400, f"Invalid volume: its status is {volume.status}")
        if size <= volume.size:
            raise Answer(400, f"Invalid input: {size} GiB are not more than {volume.size}")
        volume.status, volume.asked = "extending", -size

    def _extended(self, volume: Volume) -> None:
        """The volume service is done with what was asked, at the second look at it."""
        if volume.asked < 0:
            volume.asked = -volume.asked
        elif volume.asked:
            volume.status = volume.extended(volume.asked)
            if volume.status == "in-use":
                volume.size, volume.asked = volume.asked, 0

    def complete(self, id: str) -> None:
        its = self._attachment(id)
        its.status, self._volume(its.volume).status = "attached", "in-use"

    def delete(self, id: str, *, service: bool) -> dict[str, Any]:
        its = self._attachment(id)
        if its.connection and its.instance and not (service or self.has_nova):
            raise Answer(500, "The server has either erred or is incapable of performing it.")
        del self.attachments[id]
        volume = self.volumes[its.volume]
        left = self.of(volume)
        volume.status = "in-use" if any(e.status == "attached" for e in left) else "available"
        if left and volume.status == "available":
            volume.status = "reserved"
        return {"attachments": [_shown(each)["attachment"] for each in left]}

    def _volume(self, id: str) -> Volume:
        if id not in self.volumes:
            raise Answer(404, f"Volume {id} could not be found.")
        return self.volumes[id]

    def _attachment(self, id: str) -> Attachment:
        if id not in self.attachments:
            raise Answer(404, f"Volume attachment could not be found with filter: id = {id}.")
        return self.attachments[id]

    def answer(
        self, method: str, path: list[str], query: Mapping[str, str], body: Any, service: bool
    ) -> tuple[int, Any]:
        match method, path:
            case _, ["volumes", *rest]:
                return self._of_volumes(method, rest, query, body)
            case "GET", ["attachments" | "attachments", *detail] if detail in ([], ["detail"]):
                everybodys = "all_tenants" in query and "admin" in self.roles
                found = [
                    _shown(each)["attachment"]
                    for each in self.attachments.values()
                    if (everybodys or not each.elsewhere)
                    and query.get("volume_id") in (None, each.volume)
                    and query.get("instance_id") in (None, each.instance)
                ]
                if not detail:
                    found = [{k: f[k] for k in ("id", "status", "instance")} for f in found]
                return 200, {"attachments": found}
            case "GET", ["attachments", id]:
                return 200, _shown(self._attachment(id))
            case "POST", ["attachments"]:
                return 200, self.reserve(body["attachment"])
            case "PUT", ["attachments", id]:
                return 200, self.update(id, body["attachment"]["connector"])
            case "POST", ["attachments", id, "action"] if "os-complete" in body:
                self.complete(id)
                return 204, None
            case "DELETE", ["attachments", id]:
                return 200, self.delete(id, service=service)
        raise Answer(404, "The resource could not be found.")

    def _of_volumes(
        self, method: str, path: list[str], query: Mapping[str, str], body: Any
    ) -> tuple[int, Any]:
        match method, path:
            case "GET", []:
                named = [v for v in self.volumes.values() if query.get("name") in (None, v.name)]
                return 200, {"volumes": [{"id": v.id, "name": v.name} for v in named]}
            case "GET", [id]:
                v = self._volume(id)
                self._extended(v)
                shown = ("id", "name", "status", "size", "multiattach", "encrypted")
                return 200, {"volume": {name: getattr(v, name) for name in shown}}
            case "POST", [id, "action"] if "os-extend" in body:
                self.extend(self._volume(id), body["os-extend"]["new_size"])
                return 202, None
        raise Answer(404, "The resource could not be found.")

    def token(self, asked: Any) -> tuple[str, Any]:
        """Keystone's answer to a password or an application credential."""
        identity = asked["auth"]["identity"]
        given = identity.get("password", {}).get("user", {}).get("password")
        given = given or identity.get("application_credential", {}).get("secret")
        if given != self.password:
            raise Answer(401, "The request you have made requires authentication.")
        token = uuid.uuid4().hex
        self.tokens.add(token)
        endpoint = {
            "id": "e1",
            "interface": "public",
            "region": "RegionOne",
            "region_id": "RegionOne",
            "url": f"{self.url}/volume/v3/{self.project}",
        }
        catalog = [
            {"id": "c1", "type": "block-storage", "name": "cinder", "endpoints": [endpoint]},
        ]
        domain = {"id": "default", "name": "Default"}
        return token, {
            "token": {
                "methods": identity["methods"],
                "expires_at": "2999-01-01T00:00:00.000000Z",
                "issued_at": "2026-01-01T00:00:00.000000Z",
                "user": {"id": "u1", "name": "moorline", "domain": domain},
                "project": {"id": self.project, "name": "disks", "domain": domain},
                "roles": [{"id": name, "name": name} for name in self.roles],
                "catalog": catalog,
            }
        }


def environment(url: str, password: str = "right") -> dict[str, str]:
    """What a client of the cloud at *url* is given in its environment."""
    return {
        "OS_AUTH_URL": f"{url}/identity/v3",
        "OS_USERNAME": "moorline",
        "OS_PASSWORD": password,
        "OS_PROJECT_NAME": "disks",
        "OS_USER_DOMAIN_NAME": "Default",
        "OS_PROJECT_DOMAIN_NAME": "Default",
    }


def _shown(its: Attachment) -> dict[str, Any]:
    return {
        "attachment": {
            "id": its.id,
            "status": its.status,
            "instance": its.instance,
            "volume_id": its.volume,
            "attached_at": "",
            "detached_at": "",
            "attach_mode": "rw",
            "connection_info": its.connection or {},
        }
    }


class _Handler(BaseHTTPRequestHandler):
    its: Cloud
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet for each answer: two are delayed by the kernel
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        pass

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"null")
        where = urlsplit(self.path)
        path = [part for part in where.path.split("/") if part]
        try:
            if path[0] == "identity":
                self._identity(path, body)
            else:
                self._volume(path[1:], {k: v[0] for k, v in parse_qs(where.query).items()}, body)
        except Answer as e:
            told = {"code": e.status, "message": e.message}
            self._say(e.status, {"error" if path[0] == "identity" else NAMES[e.status]: told})
        except ConnectionError:
            self.close_connection = True

    def _identity(self, path: list[str], body: Any) -> None:
        if self.command == "POST":
            token, told = self.its.token(body)
            self._say(201, told, {"X-Subject-Token": token})
        else:
            url = f"{self.its.url}/identity/v3/"
            self._say(200, {"version": _version("v3.14", "stable", url)})

    def _volume(self, path: list[str], query: Mapping[str, str], body: Any) -> None:
        if len(path) < 2 or path[1] != self.its.project:
            url = f"{self.its.url}/volume/v3/"
            version = _version("v3.0", "CURRENT", url)
            self._say(200, {"versions": [version | {"version": "3.71", "min_version": "3.0"}]})
            return
        if self.headers.get("X-Auth-Token") not in self.its.tokens:
            raise Answer(401, "This server could not verify that you are authorized")
        service = self.headers.get("X-Service-Token") in self.its.tokens
        service = service and "service" in self.its.roles
        rest = path[2:]
        text = "/".join(rest)
        how = self._misbehaviour(text)
        if how is not None and not how.after:
            self._misbehave(how)
        with self.its._lock:
            self.its.calls.append((self.command, text))
            status, told = self.its.answer(self.command, rest, query, body, service)
        if how is not None and how.after:
            self._misbehave(how)
        self._say(status, told)

    def _misbehaviour(self, text: str) -> Misbehaviour | None:
        for how in self.its.misbehaving:
            if how.times and how.method == self.command and how.path in text:
                how.times -= 1
                return how
        return None

    def _misbehave(self, how: Misbehaviour) -> None:
        time.sleep(how.slow_seconds)
        if how.drop:
            self.connection.close()
            raise ConnectionResetError
        if how.status:
            raise Answer(how.status, "as the test wants it")

    def _say(self, status: int, told: Any, headers: Mapping[str, str] | None = None) -> None:
        data = b"" if told is None else json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = do_DELETE = _serve


def _version(id: str, status: str, url: str) -> dict[str, Any]:
    links = [{"rel": "self", "href": url}]
    return {"id": id, "status": status, "links": links, "updated": "2026-01-01T00:00:00Z"}
