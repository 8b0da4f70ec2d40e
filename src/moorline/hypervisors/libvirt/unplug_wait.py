"""Wakes threads that wait for a guest to let go of a disk, when libvirt tells something of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from moorline.deadline import Deadline
from moorline.model import GuestId, VolumeId
from moorline.ports import Wake

_POLL_SECONDS = 0.01
"""Seconds between two looks if nobody listens to libvirt's events..."""
_LISTENING_POLL_SECONDS = 0.1
"""...and if somebody does: an event may be lost."""

_AGAIN_SECONDS = 10.0
"""Seconds until a guest that has not answered is asked once more: it may have been booting."""


class Requests:
    """Spaces the requests to a running guest to let a disk go. Thread-safe.

    A request that is repeated while a slow guest is answering the first does harm: libvirtd 11.3
    (Debian 13) ends with a segmentation fault if QEMU let the disk go just before it, and a guest
    that finds two requests may throw out the disk that is in that slot by then.
    """

    def __init__(self, again_seconds: float = _AGAIN_SECONDS) -> None:
        self._again_seconds = again_seconds
        self._guard = threading.Lock()
        self._unanswered: dict[tuple[GuestId, VolumeId], Deadline] = {}

    @contextmanager
    def due(self, guest: GuestId, volume: VolumeId) -> Iterator[bool]:
        """Whether to ask within; if so, it counts as asked, unless it raises."""
        with self._guard:
            waiting = {key: until for key, until in self._unanswered.items() if not until.over()}
            due = (guest, volume) not in waiting
            waiting.setdefault((guest, volume), Deadline(self._again_seconds))
            self._unanswered = waiting
        try:
            yield due
        except BaseException:
            if due:  # otherwise the earlier request stands
                self.done(guest, volume)
            raise

    def done(self, guest: GuestId, volume: VolumeId) -> None:
        """The guest has let the disk go, or was not asked after all."""
        with self._guard:
            self._unanswered.pop((guest, volume), None)


class NewsOfGuest:
    """The news of one guest, for one waiting thread. News only says that it is time to look."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._told = threading.Event()

    def tell(self) -> None:
        """End the wait, or the next one."""
        self._told.set()

    def wait(self) -> None:
        """Wait until something is told of the guest, or it is time to look anyway."""
        self._told.wait(self._seconds)
        self._told.clear()


class News:
    """Passes libvirt's events on to the threads that wait for their guest. Thread-safe."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: set[tuple[GuestId, NewsOfGuest]] = set()
        self._listeners = 0
        self._asked = 0
        self._closed = threading.Event()

    def listen(self, watch: Callable[[Wake, threading.Event], None]) -> None:
        """Have *watch* listen in a thread of its own, if nobody does, from the second call on.

        A process that ends after its first detach, as a command does, would listen in vain.
        """
        with self._guard:
            self._asked += 1
            needed = self._asked == 2 and not self._listeners
        if needed:
            tell_nobody: Wake = lambda guest: None  # noqa: E731
            threading.Thread(target=watch, args=(tell_nobody, self._closed), daemon=True).start()

    def close(self) -> None:
        """End the listening that :meth:`listen` began."""
        self._closed.set()

    @contextmanager
    def of(self, guest: GuestId) -> Iterator[NewsOfGuest]:
        """Collect news of *guest* within."""
        with self._guard:
            news = NewsOfGuest(_LISTENING_POLL_SECONDS if self._listeners else _POLL_SECONDS)
            self._waiting.add((guest, news))
        try:
            yield news
        finally:
            with self._guard:
                self._waiting.discard((guest, news))

    @contextmanager
    def told(self, wake: Wake) -> Iterator[Wake]:
        """Listen within: each event is passed on to *wake*, too."""

        def tell(guest: GuestId | None) -> None:
            with self._guard:
                waiting = [news for of, news in self._waiting if guest in (None, of)]
            for news in waiting:
                news.tell()
            wake(guest)

        with self._guard:
            self._listeners += 1
        try:
            yield tell
        finally:
            with self._guard:
                self._listeners -= 1
