"""NBD servers of the distribution, on loopback or on a socket: nbdkit, and QEMU's own.

``qemu-nbd`` gives one export by the name that it was told, and no other; nbdkit's gives what it has
whatever it is asked for. Different from real ones: server and client share a machine.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

NEEDED = {"nbdkit": "nbdkit", "nbdinfo": "libnbd-bin", "qemu-nbd": "qemu-utils"}
"""The commands, and what Debian has them in."""
HOST = "127.0.0.4"
_START_SECONDS = 60.0
"""For a machine that others use too: a moment is usual."""


class Missing(Exception):
    """The machine lacks something; the text says what."""


def demand() -> None:
    """Raise Missing unless all commands are here."""
    for command, package in NEEDED.items():
        if shutil.which(command) is None:
            raise Missing(f"there is no {command} ({package})")


class Server:
    """A server of one file, from ``with`` to its end. Raises Missing.

    *export*: its name, if it looks at names; None: it gives the file whatever it is asked for.
    *at*: a socket; None: a port of loopback. *tls*: the directory of its certificates.
    """

    def __init__(
        self,
        file: Path,
        export: str | None = None,
        *,
        at: Path | None = None,
        tls: Path | None = None,
        readonly: bool = False,
    ) -> None:
        demand()
        self.file = file
        self.export = export
        self.port = 0 if at else _free_port()
        self._at = at
        self._tls = tls
        self._readonly = readonly
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    @property
    def server(self) -> str:
        """``HOST:PORT``; of a socket its path."""
        return str(self._at) if self._at else f"{HOST}:{self.port}"

    def url(self, export: str | None = None) -> str:
        """What is typed for *export*; None: its own."""
        name = (self.export or "") if export is None else export
        scheme = "nbds" if self._tls else "nbd"
        if self._at:
            return f"{scheme}+unix:///{name}?socket={self._at}"
        return f"{scheme}://{self.server}/{name}"

    # --- what happens to it ---

    def start(self) -> None:
        """Start it, anew if it was there before; return when it takes connections."""
        if self._at:
            self._at.unlink(missing_ok=True)
        self._process = subprocess.Popen(self._argv(), stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{self._argv()[0]} does not start")
            time.sleep(0.02)
        if self._at:
            self._at.chmod(0o666)  # QEMU's user connects to it

    def kill(self) -> None:
        """End it, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """Have it answer nothing, and close nothing, until :meth:`go_on`."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def bytes(self, offset: int = 0, length: int = 65536) -> bytes:
        """What is in the file, behind the back of whoever has it."""
        with self.file.open("rb") as file:
            file.seek(offset)
            return file.read(length)

    # --- how ---

    def _argv(self) -> list[str]:
        if self.export is None:
            where = ["-U", str(self._at)] if self._at else ["-i", HOST, "-p", str(self.port)]
            tls = ["--tls=require", f"--tls-certificates={self._tls}", "--tls-verify-peer"]
            more = (["-r"] if self._readonly else []) + (tls if self._tls else [])
            return ["nbdkit", "-f", *where, *more, "file", str(self.file)]
        where = ["-k", str(self._at)] if self._at else ["-b", HOST, "-p", str(self.port)]
        how = ["-f", "raw", "--persistent", "--shared=8", *(["-r"] if self._readonly else [])]
        return ["qemu-nbd", *where, "-x", self.export, *how, str(self.file)]

    def _answers(self) -> bool:
        with suppress(OSError):
            if self._at:
                with socket.socket(socket.AF_UNIX) as end:
                    end.connect(str(self._at))
            else:
                socket.create_connection((HOST, self.port), 5).close()
            return True
        return False

    def _signal(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)


def certificates(directory: Path) -> Path:
    """Make those of a server at :data:`HOST` and of a client, as nbdkit and QEMU want them."""
    directory.mkdir()
    request = ("openssl", "req", "-newkey", "rsa:2048", "-nodes")
    ca = ("-keyout", "ca-key.pem", "-x509", "-subj", "/CN=lab", "-days", "2", "-out", "ca-cert.pem")
    _run(directory, *request, *ca)
    (directory / "names").write_text(f"subjectAltName=IP:{HOST}")
    for who in ("server", "client"):
        files = ("-keyout", f"{who}-key.pem", "-out", f"{who}.csr")
        _run(directory, *request, *files, "-subj", f"/CN={who}")
        sign = ("openssl", "x509", "-req", "-in", f"{who}.csr", "-CA", "ca-cert.pem")
        how = ("-CAkey", "ca-key.pem", "-CAcreateserial", "-days", "2", "-extfile", "names")
        _run(directory, *sign, *how, "-out", f"{who}-cert.pem")
    for file in directory.iterdir():
        file.chmod(0o644)  # QEMU's user reads them
    return directory


def _run(directory: Path, *argv: str) -> None:
    subprocess.run(argv, cwd=directory, check=True, capture_output=True)


def _free_port() -> int:
    with socket.socket() as end:
        end.bind((HOST, 0))
        port: int = end.getsockname()[1]
        return port
