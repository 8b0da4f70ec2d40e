"""The HTTP side: sessions, objects, updates, jobs and events."""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import ssl
import tempfile
import time
import uuid
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from lxml import etree

from lab.novalink import wire
from lab.novalink.model import Partition, Rejected
from lab.novalink.service import Job, Service

_ATOM = "application/atom+xml"  # as captured: it names no charset
_DEFAULT_GROUPS = "ViosSCSIMapping"
"""What whoever names no group gets, of what is here (``fake_vios_mappings.txt``)."""
_BUSY = (
    "Unable to send command to VIOS at this moment. VIOS {id}*{system} is busy processing some"
    " other request. Please retry the operation after sometime."
)
"""As captured (``fake_httperror.txt``)."""
_EVENTS_WAIT = 10.0


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int, service: Service, tls: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.service = service
        self.tls = tls

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that vanish or distrust our certificate are part of the game."""


class Cut(Exception):
    """Close the connection without a reply."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "LabNovaLink"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    server: Server

    def setup(self) -> None:
        if self.server.tls:  # in this thread: a slow handshake stalls nobody else
            self.request = self.server.tls.wrap_socket(self.request, server_side=True)
        self.server.service.connections += 1
        self.request.settimeout(self.server.service.idle)
        super().setup()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _handle(self) -> None:
        self.service = self.server.service
        self.faults = self.service.faults
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(url.query).items()}
        self.parts = [unquote(part) for part in url.path.split("/") if part][2:]
        scheme = "https" if self.server.tls else "http"
        self.base = f"{scheme}://{self.headers['Host']}/rest/api/uom"
        self.service.cookies += "Cookie" in self.headers
        time.sleep(self.faults.slow)
        try:
            self._dispatch(url.path)
        except Rejected as error:
            content = wire.error(error.status, self.path, error.message)
            reply = wire.entry("HttpErrorResponse", str(uuid.uuid4()), "", content)
            self.close_connection = True  # as captured
            self._send(error.status, etree.tostring(reply))
        except Cut:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_PUT = do_POST = do_DELETE = _handle

    def _dispatch(self, path: str) -> None:
        if path == "/lab" and self.command == "POST":
            self._control()
        elif self.parts[:2] == ["web", "Logon"]:
            self._logon()
        elif self.service.redirect:
            self._send(307, location=self.service.redirect + self.path)
        elif self._unauthorized():
            raise Rejected(401, "the session is not valid")
        elif self.command == "GET":
            self._get()
        elif self.command == "POST":
            self.service.updating += 1
            try:
                self._update()
            finally:
                self.service.updating -= 1
        elif self.command == "PUT" and self.parts[3:4] == ["do"]:
            self._start_job()
        elif self.command == "DELETE" and self.parts[1] == "jobs":
            self.service.jobs.pop(self.parts[2], None)
            self._send(204)
        else:
            raise Rejected(405, f"{self.command} {path} is not supported")

    # --- replies -------------------------------------------------------------

    def _send(
        self,
        status: int,
        body: bytes = b"",
        kind: str = _ATOM,
        *,
        etag: str = "",
        location: str = "",
    ) -> None:
        self.service.trace.append((self.command, self.path, status))
        self.send_response(status)
        if self.service.mode != "hmc":
            self.send_header("X-MC-Type", "PVM")
        if self.close_connection:
            self.send_header("Connection", "Close")
        self.send_header("Set-Cookie", "JSESSIONID=lab; Path=/; Secure; HttpOnly")
        if body:
            self.send_header("Content-Type", kind)
        if etag:
            self.send_header("ETag", etag)
        if location:
            self.send_header("Location", location)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _send_entry(self, title: str, content: Any) -> None:
        href = self.base.removesuffix("/rest/api/uom") + self.path
        self._send(200, etree.tostring(wire.entry(title, str(uuid.uuid4()), href, content)))

    # --- sessions ------------------------------------------------------------

    def _unauthorized(self) -> bool:
        token = self.headers.get("X-API-Session")
        if token in self.service.tokens and self.faults.take("unauthorized"):
            self.service.tokens.discard(token)
        return token not in self.service.tokens

    def _logon(self) -> None:
        if self.command == "DELETE":
            self.service.tokens.discard(self.headers.get("X-API-Session", ""))
            return self._send(204)
        if self.faults.take("garbage"):
            return self._send(200, b"<LogonResponse><not closed")
        request = wire.parse(self.body)
        token = secrets.token_urlsafe(48)
        self.service.logons += 1
        if wire.text(request, "w:GenerateX-API-SessionFile"):
            name, value = "X-API-SessionFile", self._session_file(token)
        elif (wire.text(request, "w:UserID"), wire.text(request, "w:Password")) == (
            self.service.user,
            self.service.password,
        ):
            name, value = "X-API-Session", token
        else:
            raise Rejected(401, "the user or the password is wrong")
        self.service.tokens.add(token)
        body = etree.tostring(wire.logon(name, value), xml_declaration=True, encoding="UTF-8")
        self._send(200, body, "application/vnd.ibm.powervm.web+xml; type=LogonResponse")

    def _session_file(self, token: str) -> str:
        if self.service.mode == "hmc":
            raise Rejected(400, "an HMC has no local logon")
        fd, path = tempfile.mkstemp(prefix="session-", dir=self.service.session_files)
        with os.fdopen(fd, "w") as file:
            file.write(token)
        return path

    # --- reading -------------------------------------------------------------

    def _get(self) -> None:
        kind, *rest = self.parts[1:]
        self._be_busy()
        if self.faults.take("unavailable"):
            raise Rejected(503, "the service is not available")
        if self.faults.take("garbage"):
            return self._send(200, b"<entry><not closed")
        if kind == "Event":
            return self._events()
        if kind == "jobs":
            return self._job(rest[0])
        with self.service.system.lock:
            if kind == "ManagedSystem":
                s = self.service.system
                href = f"{self.base}/ManagedSystem/{s.uuid}"
                return self._feed([wire.entry("ManagedSystem", s.uuid, href, wire.system(s))])
            if not rest:
                return self._feed([self._rendered(p) for p in self._objects(kind)])
            if rest[0] == "search":
                return self._feed([self._rendered(p) for p in self._search(kind, rest[1])])
            return self._get_one(self._object(kind, rest[0]), rest[1:])

    def _get_one(self, p: Partition, rest: list[str]) -> None:
        if rest[:1] == ["quick"]:
            quick = {"PartitionID": p.id, "PartitionName": p.name, "PartitionState": p.state}
            return self._send(200, json.dumps(quick[rest[1]]).encode(), "application/json")
        if rest[:1] == ["do"]:
            return self._send_entry("JobRequest", wire.job_request(p.kind, rest[1]))
        body, etag = self._entry(p)
        if self.headers.get("If-None-Match") == etag:
            return self._send(304, etag=etag)
        self._send(200, body, etag=etag)

    def _feed(self, entries: list[Any]) -> None:
        if not entries:
            return self._send(204)
        href = self.base.removesuffix("/rest/api/uom") + self.path
        self._send(200, etree.tostring(wire.feed(href, entries)))

    def _objects(self, kind: str) -> list[Partition]:
        if kind not in ("LogicalPartition", "VirtualIOServer"):
            raise Rejected(404, f"there is no resource {kind}")
        return [p for p in self.service.system.partitions.values() if p.kind == kind]

    def _object(self, kind: str, ident: str) -> Partition:
        for p in self._objects(kind):
            if p.uuid == ident.upper():
                return p
        raise Rejected(404, f"there is no {kind} {ident}")

    def _search(self, kind: str, condition: str) -> list[Partition]:
        found = re.fullmatch(r"\((PartitionName|PartitionID)=='(.*)'\)", unquote(condition))
        if not found:
            raise Rejected(400, f"cannot search for {condition}")
        name = {"PartitionName": "name", "PartitionID": "id"}[found[1]]
        return [p for p in self._objects(kind) if str(getattr(p, name)) == found[2]]

    def _rendered(self, p: Partition) -> Any:
        return etree.fromstring(self._entry(p)[0])

    def _entry(self, p: Partition) -> tuple[bytes, str]:
        s = self.service.system
        group = self.query.get("group", _DEFAULT_GROUPS)
        key = (p.uuid, group, self.base, s.version)
        if key not in self.service.rendered:
            if any(known[3] != s.version for known in self.service.rendered):
                self.service.rendered.clear()
            mappings = bool({"ViosSCSIMapping", "All"} & set(group.split(",")))
            content = wire.partition(p, mappings=mappings)
            shape = wire.fill(etree.tostring(content), s, p, self.base)
            etag = str(zlib.crc32(shape))
            # The link repeats the group: a client refreshes by it, and would
            # otherwise come back without the mappings.
            asked = f"?group={group}" if "group" in self.query else ""
            href = f"{self.base}/{p.kind}/{p.uuid}{asked}"
            body = etree.tostring(wire.entry(p.kind, p.uuid, href, content, etag))
            self.service.rendered[key] = wire.fill(body, s, p, self.base), etag
        return self.service.rendered[key]

    # --- changing ------------------------------------------------------------

    def _update(self) -> None:
        kind, ident = self.parts[1:3]
        time.sleep(self.faults.slow_update)
        if self.faults.take("drop"):
            raise Cut
        self._be_busy()
        if self.faults.take("error"):
            raise Rejected(500, "the server stumbled")
        if self.faults.take("reject"):
            raise Rejected(400, "the server does not want to")
        with self.service.system.lock:
            p = self._object(kind, ident)
            if self.faults.take("conflict") or self.headers.get("If-Match") != self._entry(p)[1]:
                raise Rejected(412, "the ETag does not match")
            self._apply(p)
            body, etag = self._entry(p)
        time.sleep(self.faults.slow_reply)
        if self.faults.take("drop_after"):
            raise Cut
        if self.faults.take("error_after"):
            raise Rejected(500, "the server stumbled at the end")
        self._send(200, body, etag=etag)

    def _apply(self, p: Partition) -> None:
        asked = wire.asked(wire.parse(self.body))
        if p.kind != "VirtualIOServer" or asked is None:
            return
        s = self.service.system
        before = s.mappings[p.uuid]
        s.update(p.uuid, asked)
        after = s.mappings[p.uuid]
        no_disk = len(after) > len(before) and self.faults.take("no_disk")
        no_target = len(after) > len(before) and self.faults.take("no_target")
        if no_disk:
            s.cripple(p.uuid, before, disk=None, lua="")
        if no_target:
            s.cripple(p.uuid, before, lua="")

    # --- jobs and events -------------------------------------------------------

    def _be_busy(self) -> None:
        if self.faults.take("busy"):
            raise Rejected(500, _BUSY.format(id=1, system=self.service.system.name))

    def _start_job(self) -> None:
        self._be_busy()
        if self.faults.take("error"):
            raise Rejected(500, "the server stumbled")
        parameters = wire.parameters(wire.parse(self.body))
        ident = str(time.time_ns())
        self.service.jobs[ident] = self._run(parameters.get("VirtualDiskUDID", ""))
        self._job(ident)

    def _run(self, udid: str) -> Job:
        polls = self.faults.job_polls
        if self.faults.take("job_exception"):
            return Job("FAILED_BEFORE_COMPLETION", {}, "PmcJobException: the disk is locked", polls)
        if self.faults.take("job_code"):
            return Job("COMPLETED_WITH_ERROR", {"RETURN_CODE": "-7"}, "", polls)
        ok = False
        if self.parts[4] == "RescanVirtualDisk":
            with self.service.system.lock:
                server = self._object(self.parts[1], self.parts[2])
                ok = self.service.system.rescan(server.uuid, udid)
        if ok:
            return Job("COMPLETED_OK", {}, "", polls)
        lost = {"RETURN_CODE": "-1", "result": "no such virtual disk\n"}
        return Job("COMPLETED_WITH_ERROR", lost, "", polls)

    def _job(self, ident: str) -> None:
        job = self.service.jobs.get(ident)
        if job is None:
            raise Rejected(404, f"there is no job {ident}")
        job.polls -= 1
        if job.polls >= 0:
            return self._send_entry("JobResponse", wire.job_response(ident, "RUNNING", {}))
        response = wire.job_response(ident, job.status, job.results, job.exception)
        self._send_entry("JobResponse", response)

    def _events(self) -> None:
        queue = self.query["QUEUE_APPLICATIONID"]
        s = self.service.system
        with s.changed:
            told = self.service.queues.get(queue)
            if told is None:
                kind, data = "NEW_CLIENT", ""
            else:
                if not s.changed.wait_for(lambda: s.version > told, _EVENTS_WAIT):
                    return self._send(204)
                kind, data = "MODIFY_URI", f"{self.base}/ManagedSystem/{s.uuid}"
            self.service.queues[queue] = s.version
            number = s.version
        href = f"{self.base}/Event/{number}"
        content = wire.event(number, kind, data)
        self._feed([wire.entry("Event", str(uuid.uuid4()), href, content)])

    # --- control ---------------------------------------------------------------

    def _control(self) -> None:
        """``POST /lab``: what shall go wrong, how partitions are, and what is mapped."""
        order = json.loads(self.body or b"{}")
        try:
            self.faults.set(**order.get("faults", {}))
            for name, changes in order.get("partitions", {}).items():
                self.service.system.alter(name, **changes)
        except (ValueError, TypeError, StopIteration) as error:
            return self._send(400, json.dumps({"error": str(error)}).encode(), "application/json")
        s = self.service.system
        with s.lock:
            mapped = [
                {
                    "client": s.partitions[m.client].name if m.client in s.partitions else "",
                    "slot": m.client_slot,
                    "lua": m.lua,
                    "path": m.disk.path if m.disk else None,
                    "tag": m.disk.tag if m.disk else None,
                }
                for mappings in s.mappings.values()
                for m in mappings
            ]
        state = {"mappings": mapped, "updates": self.service.updates()}
        self._send(200, json.dumps(state).encode(), "application/json")
