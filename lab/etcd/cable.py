"""The cables between members: each can be cut, and then nothing gets through, without an error.

A member reaches another through that one's cable. All members are on loopback, so who is at
the other end of a connection is told by whose socket it is (/proc/net/tcp, /proc/PID/fd).
"""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


class Cables:
    """Carries what members say to each other. *owner*: the member's name, of a process."""

    def __init__(self, owners: Callable[[], dict[str, int]]) -> None:
        self._owners = owners
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()
        self._cut: set[str] = set()
        self._ended = False
        self._pairs: set[tuple[str, str, socket.socket, socket.socket]] = set()
        self._thread = threading.Thread(target=self._carry, name="cables", daemon=True)

    def lay(self, name: str, listening: socket.socket, port: int) -> None:
        """What arrives at *listening* goes to member *name*, which listens at *port*."""
        listening.listen()
        self._selector.register(listening, selectors.EVENT_READ, ("accept", name, port))

    def start(self) -> None:
        self._thread.start()

    def cut(self, name: str) -> None:
        """Nothing reaches member *name*, and nothing that it says is heard."""
        with self._lock:
            self._cut.add(name)

    def mend(self) -> None:
        """All are connected again: what was cut ends, and is made anew by the members."""
        with self._lock:
            was, self._cut = self._cut, set()
            for pair in [p for p in self._pairs if was & {p[0], p[1]}]:
                self._end(pair)

    def close(self) -> None:
        self._ended = True
        self._thread.join(5)
        with self._lock:
            for pair in list(self._pairs):
                self._end(pair)
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()

    def _carry(self) -> None:
        while not self._ended:
            for key, _ in self._selector.select(0.05):
                with self._lock, suppress(OSError, KeyError):
                    kind, *rest = key.data
                    if kind == "accept":
                        self._accept(key.fileobj, *rest)  # type: ignore[arg-type]
                    else:
                        self._pump(key.fileobj, *rest)  # type: ignore[arg-type]

    def _accept(self, listening: socket.socket, name: str, port: int) -> None:
        near, (_, from_port) = listening.accept()
        who = self._whose(from_port)
        try:
            far = socket.create_connection(("127.0.0.1", port), timeout=2)
        except OSError:
            near.close()
            return
        pair = (who, name, near, far)
        self._pairs.add(pair)
        for one, other in ((near, far), (far, near)):
            one.settimeout(5)
            self._selector.register(one, selectors.EVENT_READ, ("pump", other, pair))

    def _pump(
        self,
        one: socket.socket,
        other: socket.socket,
        pair: tuple[str, str, socket.socket, socket.socket],
    ) -> None:
        if pair not in self._pairs:
            return
        try:
            data = one.recv(65536)
            if data and not self._cut & {pair[0], pair[1]}:
                other.sendall(data)
        except OSError:
            data = b""
        if not data:
            self._end(pair)

    def _end(self, pair: tuple[str, str, socket.socket, socket.socket]) -> None:
        self._pairs.discard(pair)
        for one in pair[2:]:
            with suppress(KeyError, ValueError):
                self._selector.unregister(one)
            one.close()

    def _whose(self, port: int) -> str:
        """Which member has the socket whose own port is *port*; '' for none."""
        local = f"0100007F:{port:04X}"
        table = Path("/proc/net/tcp").read_text().splitlines()[1:]
        inodes = {fields[9] for fields in map(str.split, table) if fields[1] == local} - {"0"}
        wanted = {f"socket:[{inode}]" for inode in inodes}
        for name, pid in self._owners().items():
            with suppress(OSError):
                for fd in Path(f"/proc/{pid}/fd").iterdir():
                    with suppress(OSError):
                        if str(fd.readlink()) in wanted:
                            return name
        return ""
