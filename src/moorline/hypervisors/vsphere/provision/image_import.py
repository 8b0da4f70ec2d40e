"""Imports an image: the import lease, and the upload that it allows."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from pyVmomi import vim

from moorline.deadline import Deadline
from moorline.errors import MoorlineError, Refused, Uncertain
from moorline.hypervisors.vsphere.client.failures import failure
from moorline.hypervisors.vsphere.client.properties import read
from moorline.hypervisors.vsphere.client.session import Session
from moorline.hypervisors.vsphere.client.tasks import Progress
from moorline.hypervisors.vsphere.client.transport import Connection, Trust

_State = vim.HttpNfcLease.State
_POLL_SECONDS = 0.2
_PROGRESS_SECONDS = 5.0
"""Seconds between two messages to vCenter that the lease is still in use."""


@contextmanager
def held(session: Session, what: str, start: Any, *, deadline: float) -> Iterator[Lease]:
    """The lease that *start* begins; completed at the end, aborted if anything goes wrong.

    vCenter itself removes what an aborted lease had made, and what it had made
    under one that is not heard of for minutes. Raises as
    :meth:`Session.change` does.
    """
    lease = Lease(session, what, session.change(what, start))
    try:
        lease.wait(deadline)
        yield lease
        session.change(what, lease.ref.HttpNfcLeaseComplete)
    except BaseException:
        with suppress(MoorlineError):
            session.change(what, lambda: lease.ref.HttpNfcLeaseAbort(None))
        raise


class Lease:
    """The right to upload the disks of a machine that is being imported."""

    def __init__(self, session: Session, what: str, ref: Any) -> None:
        self.ref = ref
        self._session = session
        self._what = what
        self._percent = -1
        self._sign_of_life = Deadline(0.0)
        """When the next one is due."""

    def wait(self, deadline: float) -> None:
        """Wait until it is ready. Raises vCenter's error if it is not granted."""
        end = Deadline(deadline)
        while (state := self._read("state")) != _State.ready:
            if state == _State.error:
                error = self._read("error")
                raise failure(self._what, error, sent=True) from error
            if end.over():
                raise Uncertain(f"{self._what}: vCenter has not let us begin in {deadline:.0f} s")
            end.sleep(_POLL_SECONDS)

    def upload(self, pieces: Iterable[bytes], length: int, progress: Progress) -> None:
        """Send a stream of *length* bytes as the machine's only disk.

        The lease is kept alive meanwhile. Raises what *pieces* raises, Uncertain.
        """
        info = self._read("info")
        disks = [each for each in info.deviceUrl or [] if each.disk]
        if len(disks) != 1:
            raise Uncertain(f"{self._what}: vCenter asks for {len(disks)} disks, not for one")
        url = urlsplit(disks[0].url)
        connection = self._connection(disks[0])
        path = f"{url.path}?{url.query}" if url.query else url.path
        try:
            connection.putrequest("POST", path)
            for name, value in _HEADERS.items():
                connection.putheader(name, value)
            connection.putheader("Content-Length", str(length))
            connection.endheaders()
            sent = 0
            for piece in pieces:
                connection.send(piece)
                sent += len(piece)
                self._tell(100 * sent // length, progress)
            answer = connection.getresponse()
            if answer.status >= 300:
                raise Uncertain(f"{self._what}: the upload was answered {answer.status}")
        except (OSError, HTTPException) as error:
            raise failure(self._what, error, sent=True) from error
        finally:
            connection.close()

    def _connection(self, disk: Any) -> Connection:
        """A verified connection to the server to which the *disk* (DeviceUrl) is uploaded."""
        session, url = self._session, urlsplit(disk.url)
        host, port, trust = url.hostname or "", url.port or 443, session.trust
        if host in ("", "*", session.host):
            host, port = session.host, url.port or session.port
        elif (told := self._told_of(host, disk)) is not None:
            trust = Trust(thumbprint=told)
        elif trust.pinned:
            raise Refused(
                f"{self._what}: vCenter does not say whose certificate {host} has",
                hint="name the authority of both in vcenter_ca, instead of vCenter's thumbprint",
            )
        return Connection(host, port, trust=trust, timeout=session.deadline)

    def _told_of(self, host: str, disk: Any) -> str | None:
        """The thumbprint of a host of the cluster, as vCenter tells it, or since 9.0 its own."""
        if not disk.sslCertificate:
            return disk.sslThumbprint or None
        try:
            certificate = ssl.PEM_cert_to_DER_cert(disk.sslCertificate)
        except ValueError as error:
            raise Refused(f"{self._what}: the certificate of {host} cannot be read") from error
        return hashlib.sha256(certificate).hexdigest()

    def _tell(self, percent: int, progress: Progress) -> None:
        if percent != self._percent:
            self._percent = percent
            progress(percent)
        if self._sign_of_life.over():
            self._sign_of_life = Deadline(_PROGRESS_SECONDS)
            # It changes nothing, so it is repeated after a cut connection: the upload goes on.
            self._session.ask(self._what, lambda: self.ref.HttpNfcLeaseProgress(percent))

    def _read(self, name: str) -> Any:
        rows = read(self._session, self._what, [self.ref], vim.HttpNfcLease, (name,))
        return rows[0][1].get(name)


_HEADERS = {"Content-Type": "application/x-vnd.vmware-streamVmdk", "Overwrite": "t"}
