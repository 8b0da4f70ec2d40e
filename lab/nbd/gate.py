"""A door before an NBD server that can be shut to QEMU alone, when it is about to have a disk.

Who asks the server first is let through: so the server hangs in just that moment.
"""

from __future__ import annotations

import select
import socket
import struct
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType

_CREDENTIALS = struct.Struct("3i")
_BYTES = 1 << 16


class Gate:
    """A socket before the server at another socket, from ``with`` to its end."""

    def __init__(self, at: Path, server: Path) -> None:
        self.at = at
        self._server = server
        self._open = threading.Event()
        self._open.set()
        self.waits = threading.Event()
        """QEMU came, and found it shut."""
        self._listening = socket.socket(socket.AF_UNIX)

    def __enter__(self) -> Gate:
        self._listening.bind(str(self.at))
        self.at.chmod(0o666)
        self._listening.listen()
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.open()
        self._listening.close()

    def shut(self) -> None:
        """Have QEMU wait that comes from now on."""
        self.waits.clear()
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    def _serve(self) -> None:
        with suppress(OSError):  # it was closed
            while True:
                end, _ = self._listening.accept()
                threading.Thread(target=self._pass, args=[end], daemon=True).start()

    def _pass(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server, suppress(OSError):
            raw = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            pid, _, _ = _CREDENTIALS.unpack(raw)
            if Path(f"/proc/{pid}/exe").readlink().name.startswith("qemu-system"):
                if not self._open.is_set():
                    self.waits.set()
                self._open.wait()
            server.connect(str(self._server))
            ends = {client: server, server: client}
            while True:
                for end in select.select(list(ends), [], [])[0]:
                    if not (data := end.recv(_BYTES)):
                        return
                    ends[end].sendall(data)
