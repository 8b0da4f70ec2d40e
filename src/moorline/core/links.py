"""Finds the back end and the parsed connection of an attachment, and looks at its link."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

from moorline.errors import MoorlineError, Refused
from moorline.model import Attachment, DiskOptions, DiskSource, Key, Link, Linked
from moorline.network_disk import NetworkLogin
from moorline.ports import (
    Backends,
    LoggingIn,
    Mounting,
    Naming,
    Placing,
    Readying,
    Sizing,
    StorageBackend,
)

_MAX_PARSED = 4096


class Storage(NamedTuple):
    """What a person calls a volume's storage. No secret."""

    url: str
    """What is typed for it (``nfs://HOST/PATH/FILE``); if it cannot be typed, its path here."""
    format: str
    """The image's; '' where there is but one."""


@runtime_checkable
class SayingOnError(Protocol):
    """Back ends of which the configuration may say what an I/O error of their disks does."""

    def on_error(self, kind: str) -> str:
        """The ``on_error`` of a disk whose attachment does not say it; ''. Raises Refused."""


class Links:
    """The links of attachments. As safe to use from several threads as *backends* are."""

    def __init__(self, backends: Backends) -> None:
        self.backends = backends
        self._read: dict[Key, tuple[Attachment, Any]] = {}
        self._parsed: dict[Key, tuple[Attachment, Any]] = {}
        """Connections that were parsed already: the same attachment always parses to the same."""
        self._told: dict[Key, tuple[Attachment, Any]] = {}
        """What people call their storage: a list tells it of all."""

    def by(self, backends: Backends) -> Links:
        """The same, but asking other instances of the same back ends."""
        same = Links(backends)
        same._read, same._parsed, same._told = self._read, self._parsed, self._told
        return same

    def inspect(self, row: Attachment) -> Link:
        """Look at the link of *row*. Raises Refused: its connection no longer fits."""
        backend, connection = self.parsed(row)
        return backend.inspect(connection)

    def may_work(self, row: Attachment) -> bool:
        """Whether the link of *row* may work, as far as the mount table tells. As inspect."""
        backend, connection = self.parsed(row)
        return not isinstance(backend, Mounting) or backend.mounted(connection)

    def ready(self, row: Attachment) -> Linked | None:
        """As :meth:`moorline.ports.Readying.ready`; None also if its back end cannot tell.

        Raises as :meth:`inspect`.
        """
        backend, connection = self.parsed(row)
        return backend.ready(connection) if isinstance(backend, Readying) else None

    def options(self, row: Attachment) -> DiskOptions:
        """What is said of the disk of *row*, or by the configuration for it. Raises Refused."""
        if row.options.on_error or not isinstance(self.backends, SayingOnError):
            return row.options
        return replace(row.options, on_error=self.backends.on_error(row.backend))

    def verified(self, row: Attachment, link: Link | None = None) -> DiskSource:
        """What of *row* may be given to its guest: as *link* tells, if it was seen ready.

        Raises as :meth:`parsed`, and as the back end's verify.
        """
        if isinstance(link, Linked) and link.verified:
            return link.source
        backend, connection = self.parsed(row)
        return backend.verify(connection)

    def login(self, row: Attachment) -> NetworkLogin | None:
        """As whom the server of *row* is asked, if its connection does not tell.

        Raises as :meth:`parsed`, and as the back end's login.
        """
        backend, connection = self.parsed(row)
        return backend.login(connection) if isinstance(backend, LoggingIn) else None

    def size(self, row: Attachment) -> int | None:
        """The bytes of a server's disk, which its server is asked for; None: it does not tell.

        Raises as :meth:`parsed`, and as the back end's verify.
        """
        backend, connection = self.parsed(row)
        return backend.size(connection) if isinstance(backend, Sizing) else None

    def backend(self, kind: str) -> StorageBackend[Any]:
        """Return the back end of *kind*, or of a URL's scheme. Raises Refused if there is none.

        A scheme may say how a server is reached: ``nbds`` by TLS, ``nbd+unix`` by a socket.
        """
        plain = kind.partition("+")[0]
        for name in (kind, plain, plain.removesuffix("s")):
            with suppress(KeyError):
                return self.backends[name]
        known = ", ".join(sorted(self.backends))
        raise Refused(f"there is no back end for {kind!r}", hint=f"known: {known}")

    def parsed(self, row: Attachment) -> tuple[StorageBackend[Any], Any]:
        """Return the back end of *row* and its connection. Raises Refused: it no longer fits."""
        backend, read = self.read(row)
        return backend, _once(self._parsed, row, lambda: _placed(row, backend, read))

    def read(self, row: Attachment) -> tuple[StorageBackend[Any], Any]:
        """As :meth:`parsed`, but the connection may lead to another link than that of *row*."""
        backend = self.backend(row.backend)
        return backend, _once(self._read, row, lambda: backend.parse(row.connection.reveal()))

    def storage(self, row: Attachment) -> Storage:
        """What a person calls the storage of *row*, as far as that can be told."""
        told: Storage = _once(self._told, row, lambda: self._storage(row))
        return told

    def _storage(self, row: Attachment) -> Storage:
        try:
            backend, connection = self.read(row)
        except MoorlineError:  # its back end is not installed any more, or refuses it by now
            return Storage(row.link, "")
        url = backend.url(connection) if isinstance(backend, Naming) else ""
        path = f"{row.link}/{connection.name}" if connection.name else row.link
        return Storage(url or path, getattr(connection, "format", ""))


def _once(
    known: dict[Key, tuple[Attachment, Any]], row: Attachment, make: Callable[[], Any]
) -> Any:
    """The result of *make* for *row*, remembered from an earlier call if there was one."""
    found = known.get(row.key)
    if found is None or found[0] is not row:
        if len(known) >= _MAX_PARSED:
            known.clear()
        found = known[row.key] = row, make()
    return found[1]


def _placed(row: Attachment, backend: StorageBackend[Any], connection: Any) -> Any:
    if (now := backend.link_name(connection)) == row.link:
        return connection
    if isinstance(backend, Placing):
        # The attachment says where its link is; the options, where new links come. If it were
        # served under its new name, the link under the old one would leak, and guests name the old
        # path.
        return backend.at(connection, row.link)
    raise Refused(
        f"volume {row.key.volume} was connected at {row.link},"
        f" which the configuration now puts at {now}",
        hint="set the option back until the volume is detached",
    )
