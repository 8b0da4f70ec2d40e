"""Calls to libvirt: every one with a deadline, its errors in our families.

A libvirt call can hang for ever (a disk on a hung FUSE mount holds its
domain's lock), and nothing in the binding can cancel it. So calls run in
threads beside the caller's; one that misses its deadline is left alone, and its
subject stays closed until it returns, so that threads do not pile up.

Each of these threads has a connection of its own: in libvirt's client, calls
that share one can wait for the call that hangs (libvirt 9.0: a second thread's
request is not sent while the first waits for its answer, if it comes at a bad moment).
A hypervisor and all that it hands out share one table of the calls that hang: a guest whose
start hangs is not asked for its disks either.
"""

from __future__ import annotations

import copy
import errno
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from types import ModuleType
from typing import Any, TypeVar

from moorline.deadline import Deadline, callers_patience
from moorline.errors import Denied, Failed, MoorlineError, NotFound, Refused, Unavailable, Uncertain

_log = logging.getLogger(__name__)


class Rejected(Refused):
    """libvirt will never accept this change, unless what it clashes with goes."""


class NoGuest(str):
    """The subject of a call about all guests, or about libvirt itself."""

    __slots__ = ()


MIN_CALL_SECONDS = 2.0
"""Seconds that a call has even if its caller waits no longer: most take some milliseconds."""
T = TypeVar("T")
Do = Callable[[Any], T]


class _Call:
    """A call under way in a worker, and its result."""

    def __init__(self, subject: str, do: Do[Any], *, asks: bool) -> None:
        self.subject = subject
        self.do = do
        self.asks = asks
        self.ended = threading.Event()
        self.virt: Any = None
        """The connection that it was made on; None: there was none."""
        self.answer: Any = None
        self.error: BaseException | None = None


class _Worker(threading.Thread):
    """Makes one call at a time, on its own connection. Dies with the process."""

    def __init__(self, uri: str, idle: list[_Worker]) -> None:
        super().__init__(name="libvirt call", daemon=True)
        self.inbox: SimpleQueue[_Call | None] = SimpleQueue()
        self._uri = uri
        self._idle = idle
        self._virt: Any = None
        self.start()

    def run(self) -> None:
        while (call := self.inbox.get()) is not None:
            self._make(call)
            ended = call.ended
            del call  # it refers to the caller's values
            self._idle.append(self)  # before the caller goes on and calls again
            ended.set()
        if self._virt is not None:
            with suppress(module().libvirtError):  # it is gone already
                self._virt.close()

    def _make(self, call: _Call, *, again: bool = False) -> None:
        try:
            call.virt = None
            call.virt = self._opened()
            call.answer = call.do(call.virt)
        except BaseException as e:  # noqa: BLE001 - raised in the caller's thread
            # That libvirtd went away shows only when it is next asked.
            if call.asks and not again and call.virt is not None and not call.virt.isAlive():
                self._make(call, again=True)
            else:
                call.error = e

    def _opened(self) -> Any:
        if self._virt is None or not self._virt.isAlive():
            self._virt = None
            self._virt = _open(self._uri)
        return self._virt


class Connection:
    """The connections to one libvirtd: opened when first used, and again when it went away.

    Safe to use from several threads; libvirt works well with about four calls
    at once. *deadline*: seconds a call has; less, if its caller waits less long.
    """

    def __init__(self, uri: str, deadline: float) -> None:
        self.uri = uri
        self._deadline = deadline
        self._guard = threading.Lock()
        self._stuck: list[_Call] = []
        self._idle: list[_Worker] = []

    def look(self, subject: str, do: Do[T]) -> T:
        """Run *do*, which changes nothing.

        Raises NotFound, Unavailable, Denied, Uncertain, Refused.
        """
        return self.begin_look(subject, do)()

    def begin_look(self, subject: str, do: Do[T]) -> Callable[[], T]:
        """As :meth:`look`; the function returned waits for it, and raises the same."""
        call = _Call(subject, do, asks=True)
        return self._begin(call, lost=Unavailable, wrong=Unavailable)

    def change(self, subject: str, do: Do[T]) -> T:
        """Run *do*, which changes something.

        Raises as :meth:`look`, Failed (libvirt says that it did not work), Rejected
        (it never will: the definition or the device is at fault), and Uncertain also
        if the connection broke, because libvirtd may have gone on.
        """
        answer: T = self._begin(_Call(subject, do, asks=False), lost=Uncertain, wrong=Failed)()
        return answer

    def times(self, deadline: float) -> Connection:
        """The same, with *deadline* times the deadline, and the same table of calls that hang."""
        other = copy.copy(self)
        other._deadline *= deadline
        return other

    def stuck(self) -> frozenset[str]:
        """The subjects of the calls that hang."""
        with self._guard:
            self._stuck[:] = [call for call in self._stuck if not call.ended.is_set()]
            return frozenset(call.subject for call in self._stuck)

    def stuck_guests(self) -> frozenset[str]:
        """The names and UUIDs of the guests about which a call hangs."""
        return frozenset(each for each in self.stuck() if not isinstance(each, NoGuest))

    def close(self) -> None:
        """Close all connections but those on which a call hangs: closing would hang, too."""
        with self._guard:
            workers, self._idle[:] = list(self._idle), []
        for worker in workers:
            worker.inbox.put(None)
        for worker in workers:
            worker.join(self._deadline)

    def _begin(
        self, call: _Call, lost: type[MoorlineError], wrong: type[MoorlineError]
    ) -> Callable[[], Any]:
        if call.subject in self.stuck():
            raise Uncertain(f"an earlier call to libvirt about {call.subject} still hangs")
        if _log.isEnabledFor(logging.DEBUG):
            verb = "asks" if call.asks else "changes"
            _log.debug("%s %s about %s: %s", verb, self.uri, call.subject, _name(call.do))
        seconds = min(self._deadline, callers_patience(MIN_CALL_SECONDS))
        deadline = Deadline(seconds)
        self._worker().inbox.put(call)

        def answer() -> Any:
            if not call.ended.wait(deadline.left()):
                with self._guard:
                    self._stuck.append(call)
                raise Uncertain(
                    f"libvirt did not answer within {seconds:.3g} s about {call.subject}"
                )
            if call.error is not None:
                raise self._translated(call.error, call.virt, lost, wrong) from call.error
            return call.answer

        return answer

    def _worker(self) -> _Worker:
        with self._guard:
            return self._idle.pop() if self._idle else _Worker(self.uri, self._idle)

    def _translated(
        self, error: BaseException, used: Any, lost: type[MoorlineError], wrong: type[MoorlineError]
    ) -> BaseException:
        virt = module()
        if not isinstance(error, virt.libvirtError):
            return error
        text = str(error)
        code = error.get_error_code()
        if code == virt.VIR_ERR_NO_DOMAIN:
            return NotFound(text)
        if code in (virt.VIR_ERR_NO_SUPPORT, virt.VIR_ERR_NO_CONNECT):
            return Refused(f"{self.uri}: {text}")
        if code == virt.VIR_ERR_INVALID_ARG:
            return Rejected(f"{self.uri}: {text}")
        if _denied(error, used):
            return Denied(f"{self.uri}: {text}")
        if used is None:
            return Unavailable(f"{self.uri} cannot be reached: {text}")
        if not used.isAlive():
            return lost(f"the connection to {self.uri} broke: {text}")
        if wrong is Failed and code in _final(virt):
            return Rejected(text)
        return wrong(text, hint=_way_out(text))


def _name(do: Do[Any]) -> str:
    """The method that makes a call: the call itself is most often a lambda without a name."""
    name = getattr(do, "__qualname__", type(do).__name__)
    return str(name).partition(".<locals>")[0]


def _way_out(text: str) -> str:
    """What to do about an error of which only libvirt's source tells what brings it about.

    A device that goes away while a guest has it leaves its node in the guest's own /dev: when it
    is detached, libvirt cannot open it, and keeps node and owner. The next device of that name
    (/dev/sda) is then taken for one that somebody uses (9.0: virSecurityDACSetOwnership).
    """
    if "Setting different" in text and "already in use" in text:
        return (
            "a device of that name went away while the guest had it, and libvirt kept it in the"
            " guest's /dev: stop the guest, and start it"
        )
    return ""


def _final(virt: ModuleType) -> frozenset[int]:
    """libvirt's codes for a change that is wrong in itself; a wrong argument is in a look, too.

    VIR_ERR_OPERATION_INVALID is none: it tells of the guest's state, which changes.
    """
    return frozenset(
        {
            virt.VIR_ERR_XML_ERROR,
            virt.VIR_ERR_XML_DETAIL,
            virt.VIR_ERR_XML_INVALID_SCHEMA,
            virt.VIR_ERR_CONFIG_UNSUPPORTED,
        }
    )


def _denied(error: Any, used: Any) -> bool:
    virt = module()
    code = error.get_error_code()
    if used is None and code == virt.VIR_ERR_SYSTEM_ERROR:
        return bool(error.get_int1() == errno.EACCES)  # libvirtd's socket
    return code in (
        virt.VIR_ERR_AUTH_FAILED,
        virt.VIR_ERR_AUTH_CANCELLED,
        virt.VIR_ERR_AUTH_UNAVAILABLE,
        virt.VIR_ERR_ACCESS_DENIED,
    )


def names_of(domain: Any) -> frozenset[str]:
    """All names by which callers may ask for a domain; libvirt is not asked for them."""
    return frozenset({domain.UUIDString(), domain.name()})


def module() -> ModuleType:
    """The libvirt binding. Raises Refused if it is not installed."""
    try:
        import libvirt
    except ImportError as e:
        raise Refused(
            f"libvirt's Python binding cannot be imported: {e}",
            hint="pip install 'moorline[libvirt]'",
        ) from e
    return libvirt  # type: ignore[no-any-return]


_loop: threading.Thread | None = None
_loop_guard = threading.Lock()


def _open(uri: str) -> Any:
    virt = module()
    # By default it prints each error to stderr, in addition to raising it.
    virt.registerErrorHandler(lambda *_: None, None)
    if uri.startswith("qemu:///embed"):
        _run_event_loop(virt)
    return virt.open(uri)


def open_with_events(uri: str) -> Any:
    """A connection that can tell of events. Raises libvirt's errors, Refused."""
    _run_event_loop(module())
    return _open(uri)


def _run_event_loop(virt: ModuleType) -> None:
    """Run libvirt's event loop: for events, and for the embedded driver in this process."""
    global _loop
    with _loop_guard:
        if _loop is None:
            virt.virEventRegisterDefaultImpl()
            _loop = threading.Thread(target=_events, args=(virt,), name="libvirt", daemon=True)
            _loop.start()


def _events(virt: ModuleType) -> None:
    while True:
        virt.virEventRunDefaultImpl()
