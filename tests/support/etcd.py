"""An etcd of one's own, and stores on it: the one way to them in tests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from moorline.errors import MoorlineError, Unavailable
from moorline.ports import Event, Store
from tests.support.missing import missing

if TYPE_CHECKING:
    from lab.etcd import Cluster
    from moorline.stores.etcd.access import Access
    from moorline.stores.etcd.store import EtcdStore

T = TypeVar("T")


@contextmanager
def etcd_lab(members: int = 1, options: Sequence[str] = ()) -> Iterator[Cluster]:
    """Skip or fail the test where there is no etcd, or no client of it."""
    try:
        import_module("moorline.stores.etcd.store")
    except ModuleNotFoundError:
        missing("needs grpcio and protobuf: pip install -e '.[fleet]'")
    from lab.etcd import Cluster, Missing

    try:
        cluster = Cluster(members, options)
    except Missing as e:
        missing(str(e))
    with cluster:
        yield cluster


def access(cluster: Cluster, user: str = "root", endpoints: Sequence[str] = ()) -> Access:
    from moorline.stores.etcd.access import Access

    return Access(tuple(endpoints or cluster.endpoints), cluster.ca, *cluster.user(user))


def store(
    cluster: Cluster, user: str = "root", endpoints: Sequence[str] = (), **more: Any
) -> EtcdStore:
    from moorline.stores.etcd.store import EtcdStore

    return EtcdStore(access(cluster, user, endpoints), **more)


class Watching:
    """A watch in a thread: what it told, and how it ended."""

    def __init__(self, store: Store, prefix: str, after: int) -> None:
        self.told: list[Event] = []
        self.error: MoorlineError | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, args=(store, prefix, after))
        self._thread.start()

    def __enter__(self) -> Watching:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(20)
        assert not self._thread.is_alive()

    def wait_for(self, key: str) -> None:
        until(lambda: any(event.key == key for event in self.told))

    def end(self, seconds: float = 20) -> MoorlineError | None:
        """What ended it by itself."""
        self._thread.join(seconds)
        assert not self._thread.is_alive(), "the watch goes on"
        return self.error

    def _watch(self, store: Store, prefix: str, after: int) -> None:
        try:
            for event in store.watch(prefix, after, self._stop):
                self.told.append(event)
        except MoorlineError as e:
            self.error = e


def answered(question: Callable[[], T | None]) -> T | None:
    """The answer, or None while nobody gives one."""
    try:
        return question()
    except Unavailable:
        return None


def until(condition: Callable[[], T | None], seconds: float = 20) -> T:
    """What *condition* gives once it is true. Fails after *seconds*."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:g} s")
        time.sleep(0.02)
    return found
