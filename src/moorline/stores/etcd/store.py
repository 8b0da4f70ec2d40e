"""The store contract on etcd."""

from __future__ import annotations

import builtins
import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc

from moorline.errors import Compacted, Conflict, Unavailable
from moorline.ports import At, Delete, Entry, Event, Put
from moorline.ports.limits import prefix_ends, within_limits
from moorline.stores.etcd.access import Access
from moorline.stores.etcd.client import (
    CALL_SECONDS,
    GIVE_UP_SECONDS,
    MAKE_ROOM,
    Client,
    Connection,
    Full,
)
from moorline.stores.etcd.grants import EPOCH
from moorline.stores.etcd.messages import DELETE, EQUAL, MOD, messages

LIST_SECONDS = 10.0
"""100,000 entries of 1 KB take 1.5 s."""
_STOP_POLL_SECONDS = 0.25
_WATCH, _WATCH_EPOCH = 1, 2


class EtcdStore:
    """See :class:`moorline.ports.Store`. Safe from many threads.

    It is made without a look at etcd, which may be away; calls then raise Unavailable after
    *give_up_seconds*. A question that a member does not answer in *call_seconds* is asked of
    another; a commit that is not answered raises Uncertain.

    List by host: one list is one answer, of at most 256 MiB.

    A backup of etcd that was brought back is another history, in which revisions mean other
    things. It is noticed by the cluster's id, by revisions that go back, and by the fleet's
    epoch; each watch then ends with Compacted until its prefix was listed again.
    """

    def __init__(
        self,
        access: Access,
        *,
        call_seconds: float = CALL_SECONDS,
        give_up_seconds: float = GIVE_UP_SECONDS,
    ) -> None:
        self._client = Client(access, call_seconds=call_seconds, give_up_seconds=give_up_seconds)
        self._lock = threading.Lock()
        self._revision = 0
        """The latest revision that was seen."""
        self._cluster = 0
        self._epoch: bytes | None = None
        self._history = 0
        """Number of the history that is seen now."""
        self._listed: dict[str, int] = {}
        """The history in which a prefix was listed last."""
        self._full = False

    @property
    def warnings(self) -> builtins.list[str]:
        """What is known against the releases of the members that were used; for people."""
        return self._client.warnings

    def cluster(self) -> str:
        """Which etcd answered last: one whose backup was brought back is another; '': none yet."""
        return f"{self._cluster:x}" if self._cluster else ""

    def get(self, key: str) -> Entry | None:
        answer = self._range(messages.RangeRequest(key=key.encode()))
        return _entry(answer.kvs[0]) if answer.kvs else None

    def list(self, prefix: str) -> tuple[builtins.list[Entry], int]:
        first, end = prefix_ends(prefix)
        # No pages: for each, etcd counts all that is left (9 s for 300,000 entries).
        request = messages.RangeRequest(key=first.encode(), range_end=end.encode())
        # Taken before the call: if the history changes meanwhile, the answer may be of the old one.
        history = self._history
        answer = self._range(request, seconds=LIST_SECONDS)
        with self._lock:
            self._listed[prefix] = history
        return [_entry(kv) for kv in answer.kvs], answer.header.revision

    def commit(self, when: Sequence[At], then: Sequence[Put | Delete]) -> int:
        within_limits(when, then)
        self._has_room(then)
        floor = self._revision
        try:
            answer = self._client.tell("KV/Txn", _transaction(when, then), messages.TxnResponse)
        except Full:
            self._full = True
            raise
        self._notice(answer.header, floor)
        if answer.succeeded:
            return int(answer.header.revision)
        found = [each.response_range.kvs for each in answer.responses]
        current = {
            at.key: _entry(kvs[0]) if kvs else None for at, kvs in zip(when, found, strict=True)
        }
        lost = {at.key for at in when if _revision(current[at.key]) != at.revision}
        raise Conflict(
            f"{', '.join(sorted(lost))} changed meanwhile",
            current={key: current[key] for key in lost},
        )

    def watch(self, prefix: str, after: int, stop: threading.Event) -> Iterator[Event]:
        first, end = prefix_ends(prefix)
        now = self._known(prefix, after)
        creations = [
            messages.WatchCreateRequest(
                key=first.encode(),
                range_end=end.encode(),
                start_revision=after + 1,
                progress_notify=True,
                watch_id=_WATCH,
            ),
            messages.WatchCreateRequest(
                key=EPOCH.encode(), start_revision=now + 1, watch_id=_WATCH_EPOCH
            ),
        ]
        with self._responses(creations, stop) as responses:
            for response in responses:
                self._still_watched(response, prefix)
                if response.watch_id == _WATCH:
                    yield from _events(response)

    def close(self) -> None:
        self._client.close()

    def _range(self, request: Any, *, seconds: float = 0) -> Any:
        floor = self._revision
        answer = self._client.ask("KV/Range", request, messages.RangeResponse, seconds=seconds)
        self._notice(answer.header, floor)
        return answer

    def _notice(self, header: Any, floor: int) -> None:
        """Notice another history. *floor*: a revision that was seen before the call was made."""
        with self._lock:
            if self._cluster not in (0, header.cluster_id) or header.revision < floor:
                self._history += 1
                self._revision = header.revision
            self._cluster = header.cluster_id
            self._revision = max(self._revision, header.revision)

    def _known(self, prefix: str, after: int) -> int:
        """The revision now. Raises Compacted if *after* is not one of this history."""
        answer = self._range(messages.RangeRequest(key=EPOCH.encode()))
        self._notice_epoch(answer.kvs[0].value if answer.kvs else b"")
        with self._lock:
            known = self._listed.setdefault(prefix, self._history) == self._history
        if not known:
            raise Compacted("etcd has another history: a backup was brought back")
        if after > answer.header.revision:
            raise Compacted(f"revision {after} is not there: the last is {answer.header.revision}")
        return int(answer.header.revision)

    def _notice_epoch(self, epoch: bytes) -> None:
        with self._lock:
            if self._epoch not in (None, epoch):
                self._history += 1
            self._epoch = epoch

    def _has_room(self, then: Sequence[Put | Delete]) -> None:
        """Raise Unavailable while etcd says that it is full: then a change is surely not taken.

        Asked only after a commit failed for that. What only deletes is taken.
        """
        if self._full and any(isinstance(operation, Put) for operation in then):
            if self._client.is_full():
                raise Unavailable("etcd is full, and takes no entries", hint=MAKE_ROOM)
            self._full = False

    @contextmanager
    def _responses(
        self, creations: Sequence[Any], stop: threading.Event
    ) -> Iterator[Iterator[Any]]:
        requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for creation in creations:
            requests.put(messages.WatchRequest(create_request=creation))
        connection = self._client.connection()
        call = self._client.stream(
            connection, "Watch/Watch", iter(requests.get, None), messages.WatchResponse
        )
        over = threading.Event()

        def end() -> None:
            """Cancel the call when it is to end: nothing else ends the wait for a response."""
            while not (over.is_set() or stop.wait(_STOP_POLL_SECONDS)):
                if not self._client.is_current(connection):
                    break
            call.cancel()

        threading.Thread(target=end, name="etcd-watch", daemon=True).start()
        try:
            yield self._received(call, connection, stop)
        finally:
            over.set()
            requests.put(None)
            call.cancel()

    def _received(self, call: Any, connection: Connection, stop: threading.Event) -> Iterator[Any]:
        try:
            yield from call
        except grpc.RpcError as e:
            if stop.is_set() or self._client.closed:
                return
            self._client.leave(connection)
            raise Unavailable(f"the watch of etcd ended: {e.code().name}") from e
        if not (stop.is_set() or self._client.closed):
            self._client.leave(connection)
            raise Unavailable("the watch of etcd ended")

    def _still_watched(self, response: Any, prefix: str) -> None:
        if response.compact_revision:
            raise Compacted(f"etcd's history before {response.compact_revision} is forgotten")
        if response.canceled:
            # The reason is a text only. Who may not watch may not read either: this raises Denied.
            first, end = prefix_ends(prefix)
            self._range(
                messages.RangeRequest(key=first.encode(), range_end=end.encode(), keys_only=True)
            )
            raise Unavailable("etcd ended the watch")
        for event in response.events if response.watch_id == _WATCH_EPOCH else ():
            self._notice_epoch(event.kv.value)
            raise Compacted("the fleet's epoch changed: a backup was brought back")


def _transaction(when: Sequence[At], then: Sequence[Put | Delete]) -> Any:
    return messages.TxnRequest(
        compare=[
            messages.Compare(
                key=at.key.encode(), target=MOD, result=EQUAL, mod_revision=at.revision
            )
            for at in when
        ],
        success=[_operation(operation) for operation in then],
        failure=[
            messages.RequestOp(request_range=messages.RangeRequest(key=at.key.encode()))
            for at in when
        ],
    )


def _operation(operation: Put | Delete) -> Any:
    key = operation.key.encode()
    if isinstance(operation, Put):
        return messages.RequestOp(request_put=messages.PutRequest(key=key, value=operation.value))
    return messages.RequestOp(request_delete_range=messages.DeleteRangeRequest(key=key))


def _events(response: Any) -> Iterator[Event]:
    for event in response.events:
        gone = event.type == DELETE
        kv = event.kv
        yield Event(kv.mod_revision, kv.key.decode(), None if gone else _entry(kv))
    if response.events:
        # All of a revision comes in one response. The header's may be ahead of what was told.
        yield Event(response.events[-1].kv.mod_revision, "", None)
    elif not response.created:
        yield Event(response.header.revision, "", None)


def _entry(kv: Any) -> Entry:
    return Entry(kv.key.decode(), kv.value, kv.mod_revision)


def _revision(entry: Entry | None) -> int:
    return entry.revision if entry else 0
