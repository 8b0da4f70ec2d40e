"""A session with vCenter that is logged in when it is needed, and again when it is lost."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pyVmomi import vim

from moorline.deadline import Deadline
from moorline.errors import Denied, MoorlineError, Refused
from moorline.hypervisors.vsphere.client.failures import BREAKS, ERRORS, failure
from moorline.hypervisors.vsphere.client.transport import Stub, Trust
from moorline.ports import OnIdentity, Values, any_identity
from moorline.secret import Secret, password_in

T = TypeVar("T")

VERSION = "vim.version.version11"
"""vSphere API 6.5: the first with all that is used here, and spoken by every later vCenter."""
PBM_VERSION = "pbm.version.version2"
KEEP_ALIVE_SECONDS = 600.0
"""Seconds between two signs of life; vCenter ends a session that is silent for 30 minutes."""
_DENIAL_PAUSE_SECONDS = 300.0
"""Seconds for which a refused password is not tried again: repeated logins lock accounts."""


@dataclass(frozen=True, slots=True)
class Logon:
    """How to log in to vCenter."""

    host: str
    user: str
    password: Secret[str]
    port: int = 443
    ca: Path | None = None
    """The authorities that may vouch for the server; None: those of the system."""
    thumbprint: str = ""
    """The SHA-256 of the server's certificate, which is then trusted whoever signed it; ''."""

    def __post_init__(self) -> None:
        if self.thumbprint and not re.fullmatch(r"([0-9A-Fa-f]{2}:?){32}", self.thumbprint):
            raise Refused(
                "the thumbprint of vCenter is not a SHA-256 (64 hexadecimal digits)",
                hint="openssl x509 -noout -fingerprint -sha256 -in CERTIFICATE",
            )

    @classmethod
    def from_uri(cls, uri: str, values: Values) -> Logon:
        """``vsphere://HOST[:PORT]``; user, password's file, CA and thumbprint are in *values*.

        Raises Refused, Denied.
        """
        url = urlsplit(uri)
        try:
            port = url.port or 443
        except ValueError:
            port = -1
        odd = url.username or url.path.strip("/") or url.query or url.fragment
        if port < 0 or odd or not url.hostname:
            # Not repeated: people put passwords there.
            raise Refused("vCenter's address is not vsphere://HOST[:PORT]")
        if not values["vcenter_user"] or not values["vcenter_password_file"]:
            raise Refused(
                f"no user or no password is named for {url.hostname}",
                hint="set vcenter_user and vcenter_password_file in [vsphere]",
            )
        ca = values["vcenter_ca"]
        return cls(
            host=url.hostname,
            port=port,
            user=values["vcenter_user"],
            password=password_in(Path(values["vcenter_password_file"])),
            ca=Path(ca) if ca else None,
            thumbprint=values["vcenter_thumbprint"],
        )


class Session:
    """The one session with vCenter of this process. Threads may share it."""

    def __init__(
        self,
        logon: Logon,
        *,
        deadline: float = 60.0,
        keep_alive: float = KEEP_ALIVE_SECONDS,
        on_identity: OnIdentity = any_identity,
    ) -> None:
        """*deadline*: seconds that a call may take. *keep_alive*: between two signs of life.

        *on_identity* is told vCenter's own UUID at each logon.
        """
        self.host, self.port = logon.host, logon.port
        self.deadline = deadline
        self.trust = Trust(logon.ca, logon.thumbprint)
        self._logon = logon
        self._on_identity = on_identity
        self._stub = self._new_stub("/sdk", VERSION)
        self._pbm = self._new_stub("/pbm/sdk", PBM_VERSION)
        self._lock = threading.Lock()
        self._content: Any = None
        self.views: dict[Any, Any] = {}
        """Views that live as long as this login, by what they show."""
        self._denied: tuple[Deadline, Denied] | None = None
        """Until when the login that was denied is not tried again, and what was said."""
        self._keep_alive = keep_alive
        self._closed = threading.Event()
        self._pulse: threading.Thread | None = None

    @property
    def content(self) -> Any:
        """vCenter's service content; logs in if we are not. Raises as :meth:`ask` does."""
        with self._lock:
            if self._content is None:
                self._content = self._log_in()
                self._keep()
            return self._content

    def ask(self, what: str, question: Callable[[], T]) -> T:
        """Return *question()*, which changes nothing; *what* begins the text of an error.

        It is asked again after a login if the session was lost, and once more
        over a fresh connection if an idle one had been cut.
        Raises Unavailable, Denied, NotFound, Refused, Failed.
        """
        return self._call(what, question, sent=False)

    def change(self, what: str, call: Callable[[], T]) -> T:
        """Return *call()*, one call that changes something.

        It is made again only if vCenter turned it away for want of a login.
        Raises as :meth:`ask` does, and Uncertain.
        """
        return self._call(what, call, sent=True)

    def policies(self) -> Any:
        """The storage policy service's content, in the same session. Raises as :meth:`ask`."""
        from pyVmomi import pbm

        alive = vim.ServiceInstance("ServiceInstance", self._stub)

        def look() -> Any:
            alive.CurrentTime()  # the policy service itself does not report that we are logged out
            self._pbm.requestContext = {"vcSessionCookie": _session_id(self._stub)}
            return pbm.ServiceInstance("ServiceInstance", self._pbm).RetrieveContent()

        return self.ask("storage policies cannot be read", look)

    def reference(self, kind: Any, id: str) -> Any:
        """Name the object of that *kind* that vCenter knows by *id*; asks nothing."""
        return kind(id, self._stub)

    def close(self) -> None:
        """Log out. May block for a call's deadline."""
        self._closed.set()
        if self._pulse is not None:
            self._pulse.join()  # or it would log in again
        with self._lock:
            if self._content is not None:
                with suppress(*ERRORS):  # it ends by itself, too
                    self._content.sessionManager.Logout()
            self._content = None
            self._stub.DropConnections()
            self._pbm.DropConnections()

    def _call(self, what: str, call: Callable[[], T], *, sent: bool) -> T:
        before = self.content
        try:
            try:
                return call()
            except vim.fault.NotAuthenticated:
                self._renew(before)
            except BREAKS as error:
                if sent or isinstance(error, TimeoutError):
                    raise
            return call()
        except ERRORS as error:
            raise failure(what, error, sent=sent) from error

    def _renew(self, lost: Any) -> None:
        """Log in again, unless another thread did so meanwhile."""
        with self._lock:
            if self._content is lost:
                self._content = None
                self._content = self._log_in()

    def _keep(self) -> None:
        """Keep the session alive from now on: a lost one costs the next caller a login."""
        if self._pulse is None and not self._closed.is_set():
            self._pulse = threading.Thread(target=self._beat, name="vCenter pulse", daemon=True)
            self._pulse.start()

    def _beat(self) -> None:
        alive = vim.ServiceInstance("ServiceInstance", self._stub)
        while not self._closed.wait(self._keep_alive):
            with suppress(MoorlineError):  # the next call raises it
                self.ask("vCenter gives no sign of life", alive.CurrentTime)

    def _new_stub(self, path: str, version: str) -> Stub:
        given = self._logon
        return Stub(
            given.host,
            given.port,
            trust=self.trust,
            deadline=self.deadline,
            path=path,
            version=version,
        )

    def _log_in(self) -> Any:
        given = self._logon
        if self._denied and not self._denied[0].over():
            raise Denied(self._denied[1].message, hint=self._denied[1].hint)
        self._stub.cookie = ""
        self.views = {}
        try:
            content: Any = vim.ServiceInstance("ServiceInstance", self._stub).RetrieveContent()
            content.sessionManager.Login(given.user, given.password.reveal())
        except vim.fault.InvalidLogin as error:
            denied = Denied(
                f"{given.host} does not let {given.user} log in",
                hint="check vcenter_user and vcenter_password_file in [vsphere]",
            )
            self._denied = (Deadline(_DENIAL_PAUSE_SECONDS), denied)
            raise denied from error
        except ERRORS as error:
            raise failure(f"{given.host} cannot be logged in to", error, sent=False) from error
        try:
            self._on_identity(content.about.instanceUuid or "")  # a host without vCenter has none
        except MoorlineError:
            with suppress(*ERRORS):  # it ends by itself, too
                content.sessionManager.Logout()
            raise
        return content


def _session_id(stub: Any) -> str:
    return str(stub.cookie).partition("=")[2].partition(";")[0].strip('"')
