"""A stand-in for NovaLink: the PowerVM REST API as far as file volumes need it.

Unmodified pypowervm is its client, over real HTTPS.

Known (from pypowervm 1.1.27's code and the REST captures in its tests,
https://github.com/powervm/pypowervm): the calls, their headers and documents;
both ways to log on; ``X-MC-Type`` (its absence means HMC); feeds, 204 for an
empty one; ETags and 412; the update of a Virtual I/O Server as a whole, with
its ``ViosSCSIMapping`` group, which whoever names no group gets too; jobs, and the
exception that one may end with; the event queue; that FileIO reads back as a virtual
disk whose unique id is a UUID, its target a disk or a DVD; capacities without needless
zeros; location codes; that Atom replies name no charset; that an error closes the
connection; that a busy Virtual I/O Server is a 500 with a text.

Assumed (not knowable without the hardware): which status a slot or LUA in use
and a missing file give (here 400); that an update is compared by server slot
and LUA; that a bus whose last disk goes, goes too; which form of LUA and unique
id a given system uses (here a choice: ``luas``, ``udids``); whether an older
schema drops tags (``tags``).

It misbehaves when told so: ``NovaLink.faults``, or ``POST /lab`` with JSON
``{"faults": {"conflict": 3}, "partitions": {"web01": {"rmc": "none"}}}``, which
answers with what is mapped. See :class:`lab.novalink.faults.Faults`.
"""

from __future__ import annotations

import ssl
import tempfile
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal

from lab.novalink import certificates
from lab.novalink.faults import Faults
from lab.novalink.model import System, build
from lab.novalink.server import Server
from lab.novalink.service import Service

# oslo.utils, beneath pypowervm, imports eventlet, which warns wherever it is installed.
warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecated")

Mode = Literal["novalink", "traditional", "hmc"]


class NovaLink:
    """The stand-in on a port of its own, from ``with`` to its end."""

    user = "neo"
    password = "lab-secret"

    def __init__(
        self,
        clients: Sequence[str] = ("web01", "db01"),
        *,
        mode: Mode = "novalink",
        system: System | None = None,
        tls: bool = True,
        port: int = 0,
    ) -> None:
        self.system = build(clients, mode=mode, system=system)
        self.faults = Faults()
        self._directory = tempfile.TemporaryDirectory(prefix="lab-novalink-")
        directory = Path(self._directory.name)
        self.service = Service(
            self.system, self.faults, self.user, self.password, mode, session_files=directory
        )
        self.ca = directory / "ca.pem"
        context = None
        if tls:
            self.ca, certificate, key = certificates.make(directory)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
        self._server = Server(port, self.service, context)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )

    def __enter__(self) -> NovaLink:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._directory.cleanup()

    @property
    def trace(self) -> list[tuple[str, str, int]]:
        """Method, path and status of every call so far."""
        return self.service.trace
