"""Calls to etcd: one member at a time, and the next one when it fails or stalls."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc

from moorline.deadline import Deadline
from moorline.errors import Compacted, Denied, MoorlineError, Unavailable, Uncertain
from moorline.stores.etcd.access import Access, target
from moorline.stores.etcd.grants import EPOCH
from moorline.stores.etcd.messages import NO_SPACE, messages
from moorline.stores.etcd.versions import FOR_ROOT_ALONE, warnings_of

CALL_SECONDS = 2.0
"""A member that does not answer a call in this time is left for the next one."""
GIVE_UP_SECONDS = 5.0
"""A leader that dies is replaced in 1 to 3 s: that long a call looks for a member."""
PAUSE_SECONDS = 0.1

_OPTIONS = (
    # etcd closes a connection with more than one ping in 5 s (--grpc-keepalive-min-time).
    # In gRPC 1.85, at least, a ping on an idle watch times out by the second one, which is a
    # minute by default; and without the last option, such a watch is pinged each half minute.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.http2.ping_timeout_ms", 3_000),
    ("grpc.http2.max_pings_without_data", 0),
    # Each channel has a connection of its own, so that a new one does not wait for an old one.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", 256 << 20),
)
# Without it, a watch hangs at a member that is cut off from its leader, and a read waits.
_HAS_LEADER = (("hasleader", "true"),)
_LONGEST_TEXT = 300

_Code = grpc.StatusCode
_DENIED = {_Code.PERMISSION_DENIED, _Code.UNAUTHENTICATED}
_NOT_DONE = {
    *(_Code.INVALID_ARGUMENT, _Code.FAILED_PRECONDITION, _Code.NOT_FOUND, _Code.ALREADY_EXISTS),
    *(_Code.OUT_OF_RANGE, _Code.UNIMPLEMENTED),
}
"""The member refused the request, and did nothing."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection to a member that answered, and that has a leader."""

    channel: grpc.Channel
    endpoint: str
    stamp: tuple[int, ...]
    """Of the certificate files that it was made with."""


class Client:
    """Calls as the user of one certificate. Safe from many threads.

    Nothing is connected until the first call, so etcd may be away when this is made.
    Calls raise Unavailable (no member answers), Denied (etcd or a file), Refused (a
    release of etcd that loses data), and as they say. They block up to
    *give_up_seconds* and a call's time-out.
    """

    def __init__(
        self,
        access: Access,
        *,
        call_seconds: float = CALL_SECONDS,
        give_up_seconds: float = GIVE_UP_SECONDS,
    ) -> None:
        self._access = access
        self._seconds = call_seconds
        self._patience = give_up_seconds
        self._lock = threading.Lock()
        self._next = 0
        self._current: Connection | None = None
        self._closed = False
        self._failure: MoorlineError | None = None
        self._failures = 0
        self._warnings: dict[str, list[str]] = {}

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def warnings(self) -> list[str]:
        """What is known against the releases of the members that were used; for people."""
        return sorted(warning for known in self._warnings.values() for warning in known)

    def ask(self, method: str, request: Any, answer: Any, *, seconds: float = 0) -> Any:
        """A question: it is asked again, of another member, until one answers.

        Raises Compacted where the revision that it names is forgotten or not there yet.
        """
        give_up = Deadline(self._patience)
        while True:
            try:
                connection = self.connection(give_up)
                return self._unary(connection, method, request, answer, seconds or self._seconds)
            except grpc.RpcError as e:
                if e.code() is _Code.OUT_OF_RANGE:
                    raise Compacted(_described(e)) from e
                if e.code() in _DENIED:
                    raise Denied(f"etcd denies it: {_described(e)}") from e
                # It also refuses requests that it got while users or roles were changed.
                if e.code() not in _NOT_DONE:
                    self.leave(connection)
                if give_up.over():
                    raise Unavailable(f"etcd does not answer: {_described(e)}") from e
                give_up.sleep(PAUSE_SECONDS)

    def tell(self, method: str, request: Any, answer: Any) -> Any:
        """A change: it is sent to a member that answered before, and not again if it may be done.

        Raises Uncertain where it may have been done; Unavailable: it surely was not.
        """
        give_up = Deadline(self._patience)
        while True:
            connection = self.connection(give_up)
            try:
                return self._unary(connection, method, request, answer, self._seconds)
            except grpc.RpcError as e:
                # It also refuses requests that it got while users or roles were changed.
                if e.code() is not _Code.INVALID_ARGUMENT or give_up.over():
                    raise self._write_error(connection, e) from e
            give_up.sleep(PAUSE_SECONDS)

    def _write_error(self, connection: Connection, error: grpc.RpcError) -> MoorlineError:
        """The error to raise for a change that failed."""
        code, told = error.code(), _described(error)
        if code in _DENIED:
            return Denied(f"etcd denies it: {told}")
        if code in _NOT_DONE:
            return Unavailable(f"etcd did not take it: {told}")
        if code is _Code.RESOURCE_EXHAUSTED:
            return Full(f"etcd is full, and may have taken it or not: {told}", hint=MAKE_ROOM)
        self.leave(connection)
        return Uncertain(f"etcd may have taken it: {told}")

    def stream(
        self, connection: Connection, method: str, requests: Iterator[Any], answer: Any
    ) -> Any:
        """The answers, which can be cancelled; iterating them raises grpc.RpcError."""
        call = connection.channel.stream_stream(
            f"/etcdserverpb.{method}",
            lambda message: message.SerializeToString(),
            answer.FromString,
        )
        try:
            return call(requests, metadata=_HAS_LEADER)
        except ValueError as e:
            raise Unavailable("the connection to etcd was closed") from e

    def is_full(self) -> bool:
        """Whether etcd says that it is full. False if this user may not ask."""
        request = messages.AlarmRequest()
        try:
            answer = self.ask("Maintenance/Alarm", request, messages.AlarmResponse)
        except Denied:
            return False
        return any(member.alarm == NO_SPACE for member in answer.alarms)

    def connection(self, give_up: Deadline | None = None) -> Connection:
        """The one in use, or one to the next member that answers and has a leader.

        *give_up*: for how long to look for one; without it, once around.
        """
        give_up = give_up or Deadline(0)
        while True:
            try:
                return self._connection()
            except Unavailable:
                if give_up.over() or self._closed:
                    raise
                give_up.sleep(PAUSE_SECONDS)

    def is_current(self, connection: Connection) -> bool:
        return self._current is connection

    def leave(self, connection: Connection) -> None:
        """Have the next call go to the next member; calls that are under way go on."""
        with self._lock:
            if self._current is connection:
                self._current = None

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._current:
                self._current.channel.close()
                self._current = None

    def _connection(self) -> Connection:
        failures = self._failures
        with self._lock:
            if self._closed:
                raise Unavailable("this store is closed")
            # A file that is missing is no reason to give up a connection that works.
            if self._current and self._access.stamp() in (self._current.stamp, ()):
                return self._current
            if self._failure and self._failures != failures:
                # Another thread tried while this one waited for its turn: its result is used.
                raise type(self._failure)(self._failure.message, hint=self._failure.hint)
            try:
                self._current = self._connected()
            except MoorlineError as e:
                self._failure, self._failures = e, self._failures + 1
                raise
            self._failure = None
            return self._current

    def _connected(self) -> Connection:
        stamp = self._access.stamp()
        credentials = self._access.credentials()
        reasons = []
        for _ in self._access.endpoints:
            endpoint = self._access.endpoints[self._next % len(self._access.endpoints)]
            self._next += 1
            channel = grpc.secure_channel(target(endpoint), credentials, _OPTIONS)
            try:
                return self._looked_at(channel, endpoint, stamp)
            except grpc.RpcError as e:
                channel.close()
                if e.code() in _DENIED:
                    raise Denied(f"{endpoint} denies it: {_described(e)}") from e
                reasons.append(f"{endpoint}: {_described(e)}")
            except MoorlineError:
                channel.close()
                raise
        raise Unavailable(f"etcd does not answer: {'; '.join(reasons)}")

    def _looked_at(
        self, channel: grpc.Channel, endpoint: str, stamp: tuple[int, ...]
    ) -> Connection:
        connection = Connection(channel, endpoint, stamp)
        # All users may read this. The answer proves that the member has a leader and knows us.
        self._unary(
            connection,
            "KV/Range",
            messages.RangeRequest(key=EPOCH.encode()),
            messages.RangeResponse,
            self._seconds,
        )
        known = warnings_of(self._version(connection), endpoint)
        for warning in known if self._warnings.get(endpoint) != known else ():
            _log.warning("%s", warning)
        self._warnings[endpoint] = known
        return connection

    def _version(self, connection: Connection) -> str:
        """The release of a member. One that tells it to root alone was mended in 2026."""
        request, answer = messages.StatusRequest(), messages.StatusResponse
        try:
            status = self._unary(connection, "Maintenance/Status", request, answer, self._seconds)
        except grpc.RpcError as e:
            if e.code() in _DENIED:  # from 3.5.28 to 3.5.31 or so
                return FOR_ROOT_ALONE
            raise
        return str(status.version)

    def _unary(
        self, connection: Connection, method: str, request: Any, answer: Any, seconds: float
    ) -> Any:
        call = connection.channel.unary_unary(
            f"/etcdserverpb.{method}",
            lambda message: message.SerializeToString(),
            answer.FromString,
        )
        try:
            return call(request, timeout=seconds, metadata=_HAS_LEADER)
        except ValueError as e:
            raise Unavailable("the connection to etcd was closed") from e


MAKE_ROOM = (
    "compact and defragment etcd, disarm its alarm, and give it a larger"
    " --quota-backend-bytes: see the page on fleets"
)


class Full(Uncertain):
    """Etcd has no more room. The change that it says so of may have been applied."""


def _described(error: grpc.RpcError) -> str:
    """The text of etcd or gRPC. It has none of the values that were sent."""
    return f"{error.code().name}: {(error.details() or '')[:_LONGEST_TEXT]}"
