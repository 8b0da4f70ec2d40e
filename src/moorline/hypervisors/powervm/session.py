"""A session with NovaLink that is logged on when it is needed, and again when it is lost."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pypowervm import adapter as pvm_adapter
from pypowervm import const
from pypowervm import exceptions as pvm
from pypowervm.tasks import partition
from pypowervm.utils.transaction import WrapperTask
from pypowervm.wrappers.managed_system import System
from pypowervm.wrappers.virtual_io_server import VIOS

from moorline.deadline import Deadline
from moorline.errors import Denied, Failed, MoorlineError, Refused
from moorline.hypervisors.powervm.failures import ERRORS, failure, told
from moorline.hypervisors.powervm.transport import Transport, session_class
from moorline.ports import OnIdentity, Values, any_identity
from moorline.secret import Secret, password_in

# It logs each failure with its traceback, which would reach the user's terminal if no
# logging is set up. All that matters of it is raised as an error.
logging.getLogger("pypowervm").addHandler(logging.NullHandler())

_DENIAL_PAUSE_SECONDS = 300.0
"""Seconds for which a refused password is not tried again: repeated logons lock accounts."""

_LOGOFF_TIMEOUT_SECONDS = 5.0
"""Seconds for logging off."""


@dataclass(frozen=True, slots=True)
class Logon:
    """How to log on to NovaLink."""

    host: str = "localhost"
    port: int = 0
    """0: NovaLink's own, 12443 with a password and 12080 without."""
    user: str = ""
    password: Secret[str] | None = None
    """None: by a file that NovaLink writes for local users, over this machine's loopback."""
    ca: Path | None = None
    """The authorities that may vouch for the server; None: those of the system."""

    @classmethod
    def from_uri(cls, uri: str, values: Values) -> Logon:
        """``powervm:///`` (by file, on this machine) or ``powervm://HOST[:PORT]``.

        The user, the file with the password and the authorities are in *values*.
        Raises Refused, Denied.
        """
        url = urlsplit(uri)
        try:
            port = url.port or 0
        except ValueError:
            port = -1
        if port < 0 or url.username or url.path.strip("/") or url.query or url.fragment:
            # Not repeated: people put passwords there.
            raise Refused("NovaLink's address is neither powervm:/// nor powervm://HOST[:PORT]")
        file, ca = values["novalink_password_file"], values["novalink_ca"]
        return cls(
            host=url.hostname or "localhost",
            port=port,
            user=values["novalink_user"],
            password=password_in(Path(file)) if file else None,
            ca=Path(ca) if ca else None,
        )

    def __post_init__(self) -> None:
        if self.password is None and self.host != "localhost":
            raise Refused(
                f"NovaLink at {self.host} cannot be used without a password",
                hint="the logon by file works on the NovaLink partition itself, as localhost",
            )
        if self.password is not None and not self.user:
            raise Refused(f"no user is named for NovaLink at {self.host}")
        if any(mark in self.user for mark in "<>&"):  # pypowervm pastes it into XML
            raise Refused(f"{self.user!r} cannot be a user of NovaLink")


@dataclass(frozen=True, slots=True)
class ManagementPartition:
    """The partition that NovaLink runs on."""

    uuid: str
    name: str
    id: int
    serves: bool
    """It is a Virtual I/O Server: files on it can be mapped."""


class NovaLink:
    """The one connection to NovaLink of this process. Threads may share it."""

    def __init__(
        self, logon: Logon, *, deadline: float = 60.0, on_identity: OnIdentity = any_identity
    ) -> None:
        """*deadline*: seconds that a call, and a change with its repetitions, may take.

        *on_identity* is told the managed system's UUID at each logon.
        """
        self.host = logon.host
        self.deadline = deadline
        self._logon = logon
        self._on_identity = on_identity
        self._transport = Transport(logon.ca)
        self._session_class = session_class(self._transport)
        self._lock = threading.Lock()
        self._adapter: Any = None
        self._management: ManagementPartition | None = None
        self._denied: tuple[Deadline, Denied] | None = None
        """Until when the logon that was denied is not tried again, and what was said."""

    def ask(self, what: str, question: Callable[[Any], Any]) -> Any:
        """Return *question(adapter)*; *what* begins the text of an error.

        Raises Unavailable, Denied, Failed, and Refused for an HMC.
        """
        adapter = self._adapter_now()
        try:
            return question(adapter)
        except ERRORS as error:
            self._drop_if_unauthorized(adapter, error)
            raise failure(what, error, sent=False) from error

    def management(self) -> ManagementPartition:
        """Return the partition that NovaLink runs on. Raises as :meth:`ask` does."""
        if self._management is None:
            self._management = self.ask(
                f"the management partition of {self.host} is unknown", _management
            )
        return self._management

    def storage(self, server: str) -> Any:
        """Read the Virtual I/O Server *server* with its vSCSI mappings."""
        return self.ask(
            f"the mappings of {self.host} cannot be read",
            lambda adapter: VIOS.get(adapter, uuid=server, xag=[const.XAG.VIO_SMAP]),
        )

    def change(self, what: str, server: str, edit: Callable[[Any], bool]) -> Any:
        """Let *edit* work on *server* with its mappings, post what it made, return the reply.

        *edit* returns whether it changed anything, and is called anew with
        fresh mappings whenever somebody else was faster (HTTP 412), until the
        deadline. What it raises goes through: nothing is changed then.
        Raises Failed, Denied, Uncertain (posted, and no answer).
        """
        adapter = self._adapter_now()
        deadline = Deadline(self.deadline)
        with told(what) as change:

            def once(vios: Any) -> bool:
                if deadline.over():
                    raise Failed(f"{what}: {vios.name} was busy for {self.deadline:.0f} s")
                change.sent = edit(vios)
                return change.sent

            getter = VIOS.getter(adapter, server, xag=[const.XAG.VIO_SMAP])
            task = WrapperTask("moorline", getter, update_timeout=self.deadline)
            task.add_functor_subtask(once)
            try:
                return task.execute()[0]
            except ERRORS as error:
                self._drop_if_unauthorized(adapter, error)
                raise
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Log off. May block for a few seconds."""
        with self._lock:
            if self._adapter is not None:
                # pypowervm does it only when it is collected, which may be never.
                self._adapter.session.timeout = _LOGOFF_TIMEOUT_SECONDS
                self._adapter.session._logoff()
            self._adapter = self._management = None
        self._transport.close()

    def _adapter_now(self) -> Any:
        with self._lock:
            if self._adapter is None:
                self._adapter = self._log_on()
            return self._adapter

    def _log_on(self) -> Any:
        if self._denied and not self._denied[0].over():
            raise Denied(self._denied[1].message, hint=self._denied[1].hint)
        given = self._logon
        try:
            with told(f"NovaLink at {given.host} cannot be logged on to"):
                session = self._session_class(
                    host=given.host,
                    username=given.user or None,
                    password=given.password.reveal() if given.password else None,
                    port=given.port or None,
                    auditmemento="moorline",
                    timeout=self.deadline,
                    certpath="",  # pypowervm's own check of certificates fails since Python 3.11
                )
        except Denied as error:
            self._denied = (Deadline(_DENIAL_PAUSE_SECONDS), error)
            raise
        if session.mc_type != "PVM":
            raise Refused(
                f"{given.host} is an HMC, not NovaLink",
                hint="Moorline runs on the NovaLink partition of the system that it serves",
            )
        adapter = pvm_adapter.Adapter(session)
        try:
            self._on_identity(_system(adapter))
        except MoorlineError:
            session._logoff()
            raise
        return adapter

    def _drop_if_unauthorized(self, adapter: Any, error: Exception) -> None:
        # pypowervm logs on again by itself, once. When that fails it never
        # tries again with this session, and where the new token is refused
        # too it raises its plain Error.
        if type(error) not in (pvm.HttpUnauth, pvm.Error):
            return
        with self._lock:
            if self._adapter is adapter:
                self._adapter = None


def _system(adapter: Any) -> str:
    """The UUID of the one system that a NovaLink manages. '': it did not say."""
    try:
        systems = System.get(adapter)
    except ERRORS:
        return ""  # the next call raises what is wrong
    return str(systems[0].uuid).lower() if len(systems) == 1 else ""


def _management(adapter: Any) -> ManagementPartition:
    try:
        found = partition.get_mgmt_partition(adapter)
    except pvm.ManagementPartitionNotFoundException as error:
        raise Refused(
            "this PowerVM system has no management partition",
            hint="Moorline needs the NovaLink partition of the system",
        ) from error
    return ManagementPartition(found.uuid, found.name, found.id, isinstance(found, VIOS))
