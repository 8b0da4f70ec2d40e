"""What a member answers, and what callers are told: whether a change may have been made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from moorline.errors import (
    Compacted,
    Denied,
    Failed,
    MoorlineError,
    Refused,
    Unavailable,
    Uncertain,
)
from moorline.ports import At, Put

pytest.importorskip("grpc")

import grpc

from moorline.stores.etcd.access import Access
from moorline.stores.etcd.authority import Authority, Certificate
from moorline.stores.etcd.messages import messages
from moorline.stores.etcd.store import EtcdStore
from moorline.stores.key_files import write_over

Code = grpc.StatusCode
FAILURES = [code for code in Code if code is not Code.OK]


class Member:
    """Answers as an etcd of any release and in any mood."""

    def __init__(self, directory: Path, authority: Authority) -> None:
        self.version = "3.6.14"
        self.fails: dict[str, list[Any]] = {}
        """By method, what the next calls are told instead of an answer; the last one stays."""
        self.asked: list[str] = []
        self.authority = authority
        self._directory = directory
        self._server = grpc.server(ThreadPoolExecutor(4))
        for service, methods in {
            "KV": {"Range": self._range, "Txn": self._txn},
            "Maintenance": {"Status": self._status, "Alarm": self._alarm},
        }.items():
            handlers = {
                name: grpc.unary_unary_rpc_method_handler(
                    self._answering(f"{service}/{name}", answer),
                    response_serializer=lambda message: message.SerializeToString(),
                )
                for name, answer in methods.items()
            }
            self._server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(f"etcdserverpb.{service}", handlers),)
            )
        made = self.authority.member(["localhost"])
        credentials = grpc.ssl_server_credentials(
            [(made.key.reveal(), made.certificate)], self.authority.pem, True
        )
        self.port = self._server.add_secure_port("localhost:0", credentials)
        self._server.start()

    def close(self) -> None:
        self._server.stop(None).wait()

    def access(self, *others: Member) -> Access:
        pair = self._directory / "user.pem", self._directory / "user.key"
        made: Certificate = self.authority.user("root")
        write_over(pair[1], made.key.reveal())
        write_over(pair[0], made.certificate)
        endpoints = [f"https://localhost:{member.port}" for member in (self, *others)]
        return Access(tuple(endpoints), self._directory / "ca.pem", *pair)

    def _answering(self, method: str, answer: Callable[[], Any]) -> Callable[[bytes, Any], Any]:
        def answered(request: bytes, context: Any) -> Any:
            self.asked.append(method)
            fails = self.fails.get(method, [])
            fail = fails[0] if len(fails) == 1 else fails.pop(0) if fails else None
            if fail is not None:
                context.abort(fail, "etcdserver: as the test wants it")
            return answer()

        return answered

    def _header(self) -> Any:
        return messages.ResponseHeader(cluster_id=1, member_id=1, revision=5, raft_term=2)

    def _range(self) -> Any:
        return messages.RangeResponse(header=self._header())

    def _txn(self) -> Any:
        return messages.TxnResponse(header=self._header(), succeeded=True)

    def _status(self) -> Any:
        return messages.StatusResponse(header=self._header(), version=self.version)

    def _alarm(self) -> Any:
        return messages.AlarmResponse(header=self._header())


@pytest.fixture
def members(tmp_path: Path) -> Iterator[list[Member]]:
    authority = Authority.make(tmp_path)
    members = [Member(tmp_path, authority) for _ in range(2)]
    yield members
    for member in members:
        member.close()


@pytest.fixture
def member(members: list[Member]) -> Member:
    return members[0]


@pytest.fixture
def store(member: Member) -> Iterator[EtcdStore]:
    store = EtcdStore(member.access(), give_up_seconds=0.3)
    yield store
    store.close()


MAY_BE_DONE = {
    *(Code.UNKNOWN, Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.CANCELLED, Code.INTERNAL),
    *(Code.ABORTED, Code.DATA_LOSS, Code.RESOURCE_EXHAUSTED),
}


@pytest.mark.parametrize(
    "code", [code for code in Code if code is not Code.OK], ids=lambda c: c.name
)
def test_a_commit_that_fails_is_told_as_what_it_is(
    member: Member, store: EtcdStore, code: Any
) -> None:
    member.fails["KV/Txn"] = [code]
    with pytest.raises(MoorlineError) as told:
        store.commit([At("/a/x", 0)], [Put("/a/x", b"p4ssw0rd")])
    if code in (Code.PERMISSION_DENIED, Code.UNAUTHENTICATED):
        assert isinstance(told.value, Denied)
    else:
        assert isinstance(told.value, Uncertain if code in MAY_BE_DONE else Failed)
    assert "p4ssw0rd" not in f"{told.value} {told.value!r} {told.value.__cause__!r}"
    # What may be done is never sent a second time.
    assert code not in MAY_BE_DONE or member.asked.count("KV/Txn") == 1


@pytest.mark.parametrize(
    "code", [code for code in Code if code is not Code.OK], ids=lambda c: c.name
)
def test_a_question_that_fails_is_told_as_what_it_is(
    member: Member, store: EtcdStore, code: Any
) -> None:
    store.get("/a/x")
    member.fails["KV/Range"] = [code]
    with pytest.raises(MoorlineError) as told:
        store.get("/a/x")
    if code in (Code.PERMISSION_DENIED, Code.UNAUTHENTICATED):
        assert isinstance(told.value, Denied)
    else:
        assert isinstance(told.value, Compacted if code is Code.OUT_OF_RANGE else Unavailable)


def test_after_a_commit_that_was_not_answered_another_member_is_asked(
    members: list[Member],
) -> None:
    first, second = members
    store = EtcdStore(first.access(second))
    first.fails["KV/Txn"] = [Code.DEADLINE_EXCEEDED]
    with pytest.raises(Uncertain):
        store.commit([], [Put("/a/x", b"1")])
    assert second.asked == []
    store.commit([], [Put("/a/x", b"1")])
    assert second.asked.count("KV/Txn") == 1
    store.close()


def test_while_grants_change_a_commit_is_sent_again(member: Member, store: EtcdStore) -> None:
    """etcd refuses those that it got before the change, and has done nothing of them."""
    member.fails["KV/Txn"] = [Code.INVALID_ARGUMENT, None]
    assert store.commit([], [Put("/a/x", b"1")]) == 5
    assert member.asked.count("KV/Txn") == 2


@pytest.mark.parametrize("version", ["3.5.0", "3.5.2", "3.3.10"])
def test_a_release_that_loses_data_is_given_none(
    member: Member, store: EtcdStore, version: str
) -> None:
    member.version = version
    for call in (lambda: store.get("/a/x"), lambda: store.commit([], [Put("/a/x", b"")])):
        with pytest.raises(Refused, match=f"etcd {version}"):
            call()
    assert "KV/Txn" not in member.asked


def test_a_member_that_tells_its_version_to_root_alone_is_used(
    member: Member, store: EtcdStore
) -> None:
    """As 3.5.28 and its contemporaries do."""
    member.fails["Maintenance/Status"] = [Code.PERMISSION_DENIED]
    assert store.commit([], [Put("/a/x", b"1")]) == 5
    assert store.warnings == []


def test_a_member_that_does_not_tell_whether_it_is_full_is_tried(
    member: Member, store: EtcdStore
) -> None:
    member.fails["KV/Txn"] = [Code.RESOURCE_EXHAUSTED, None]
    member.fails["Maintenance/Alarm"] = [Code.PERMISSION_DENIED]
    with pytest.raises(Uncertain, match="full"):
        store.commit([], [Put("/a/x", b"1")])
    assert store.commit([], [Put("/a/x", b"1")]) == 5


def test_many_who_wait_for_a_member_wait_once(member: Member) -> None:
    """Not one after the other, each for all of its time."""
    member.fails["KV/Range"] = [Code.UNAVAILABLE]
    store = EtcdStore(member.access(), give_up_seconds=0)
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(store.get, "/a/x") for _ in range(8)]
    for each in asked:
        assert isinstance(each.exception(), Unavailable)
    store.close()
