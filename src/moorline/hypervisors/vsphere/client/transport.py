"""The HTTPS beneath pyVmomi: verified on every connection, with a deadline on every call.

pyVmomi 9.1 knows thumbprints, but when one saves a certificate that does not
verify, it turns verification off in the context that all its later connections
share, and compares the thumbprint no more (``_Connect`` in
``pyVmomi/SoapAdapter.py``). Its time-out is the socket's, which a server that
sends a byte now and then never meets. So the connections are ours.
"""

from __future__ import annotations

import hashlib
import logging
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any

from pyVmomi import SoapStubAdapter

from moorline.errors import Denied

_log = logging.getLogger(__name__)

_IDLE_SECONDS = 60
"""Seconds for which a connection is kept: less than servers do, which cut it unasked."""


class Trust:
    """Whose certificate is believed.

    *ca*: the authorities (PEM); None: those of the system. *thumbprint*: that of
    the one certificate that is believed instead, whoever signed it (SHA-256, or
    the SHA-1 that vCenter tells of its hosts). Raises Denied if *ca* cannot be read.
    """

    def __init__(self, ca: Path | None = None, thumbprint: str = "") -> None:
        self._thumbprint = thumbprint.replace(":", "").lower()
        self.pinned = bool(self._thumbprint)
        """One certificate is believed, and no authority."""
        try:
            self.context = ssl.create_default_context(cafile=str(ca) if ca else None)
        except OSError as error:
            raise Denied(f"the authorities in {ca} cannot be read: {error}") from error
        if self._thumbprint:
            self.context.check_hostname = False
            self.context.verify_mode = ssl.CERT_NONE

    def verify(self, sock: ssl.SSLSocket) -> None:
        """Compare the peer's certificate with the thumbprint, if there is one."""
        if not self._thumbprint:
            return  # the context did it
        algorithm = "sha1" if len(self._thumbprint) == 40 else "sha256"
        certificate = sock.getpeercert(binary_form=True) or b""
        found = hashlib.new(algorithm, certificate).hexdigest()
        if found != self._thumbprint:
            raise ssl.SSLCertVerificationError(1, f"the certificate's thumbprint is {found}")


class Connection(HTTPSConnection):
    """A connection whose peer is known, always. Nothing is sent to another."""

    def __init__(self, host: str, port: int, *, trust: Trust, timeout: float) -> None:
        super().__init__(host, port, timeout=timeout, context=trust.context)
        self._trust = trust

    def connect(self) -> None:
        super().connect()
        assert isinstance(self.sock, ssl.SSLSocket)
        try:
            self._trust.verify(self.sock)
        except ssl.SSLError:
            self.close()
            raise


class Watch:
    """Cuts a connection when its time is over."""

    def __init__(self) -> None:
        self.over = False
        self.connection: HTTPSConnection | None = None

    def cut(self) -> None:
        self.over = True
        if self.connection is not None and self.connection.sock is not None:
            with suppress(OSError):  # it has ended by itself
                # Not close(), nor TLS's own shutdown: who reads from it must wake up.
                socket.socket.shutdown(self.connection.sock, socket.SHUT_RDWR)


@contextmanager
def within(seconds: float) -> Iterator[Watch]:
    """Cut the connection that is put on the watch after *seconds*, and raise TimeoutError."""
    watch = Watch()
    timer = threading.Timer(seconds, watch.cut)
    timer.daemon = True
    timer.start()
    try:
        yield watch
    except Exception as error:
        if watch.over or isinstance(error, TimeoutError):  # the socket's own may be the first
            raise TimeoutError(f"no answer within {seconds:.0f} s") from error
        raise
    finally:
        timer.cancel()


class Stub(SoapStubAdapter):  # type: ignore[misc]
    """pyVmomi's adapter on our connections. Threads may share it."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        trust: Trust,
        deadline: float,
        path: str,
        version: str,
    ) -> None:
        super().__init__(
            host=host,
            port=port,
            path=path,
            version=version,
            connectionPoolTimeout=_IDLE_SECONDS,
        )
        self.scheme = Connection
        self.schemeArgs = {"trust": trust, "timeout": deadline}
        self._deadline = deadline
        self._watch = threading.local()

    def InvokeMethod(self, mo: Any, info: Any, args: Any, outerStub: Any = None) -> Any:
        _log.debug("calls %s of %s", info.wsdlName, mo._GetMoId())
        with within(self._deadline) as watch:
            self._watch.now = watch
            try:
                return super().InvokeMethod(mo, info, args, outerStub)
            except OSError:
                raise  # a certificate that does not verify is a ValueError, too
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                # So pyVmomi meets what does not fit its types.
                raise HTTPException(f"the answer cannot be understood ({error!r})") from error

    def GetConnection(self) -> Any:
        self._watch.now.connection = super().GetConnection()
        return self._watch.now.connection
