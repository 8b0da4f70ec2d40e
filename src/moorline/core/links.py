"""The links of attachments, by their back ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moorline.errors import Refused
from moorline.model import Attachment, Key, Link
from moorline.ports import Backends, Placing, StorageBackend

_MOST_PARSED = 4096


class Links:
    """Tells how an attachment's link is. Safe to use from as many threads as *backends*."""

    def __init__(self, backends: Backends) -> None:
        self.backends = backends
        self._read: dict[Key, tuple[Attachment, Any]] = {}
        self._parsed: dict[Key, tuple[Attachment, Any]] = {}
        """Connections that were read and parsed already: the same attachment reads the same."""

    def by(self, backends: Backends) -> Links:
        """The same links, asked of other instances of the same back ends."""
        same = Links(backends)
        same._read, same._parsed = self._read, self._parsed
        return same

    def inspect(self, row: Attachment) -> Link:
        """Look at the link of *row*. Raises Refused: its connection no longer fits."""
        backend, connection = self.parsed(row)
        return backend.inspect(connection)

    def backend(self, kind: str) -> StorageBackend[Any]:
        """Return the back end of *kind*. Raises Refused if there is none."""
        try:
            return self.backends[kind]
        except KeyError:
            known = ", ".join(sorted(self.backends))
            raise Refused(f"there is no back end for {kind!r}", hint=f"known: {known}") from None

    def parsed(self, row: Attachment) -> tuple[StorageBackend[Any], Any]:
        """Return the back end of *row* and its connection. Raises Refused: it no longer fits."""
        backend, read = self.read(row)
        return backend, _once(self._parsed, row, lambda: _placed(row, backend, read))

    def read(self, row: Attachment) -> tuple[StorageBackend[Any], Any]:
        """As :meth:`parsed`, but it may name another link now than the attachment has."""
        backend = self.backend(row.backend)
        return backend, _once(self._read, row, lambda: backend.parse(row.connection.reveal()))


def _once(
    known: dict[Key, tuple[Attachment, Any]], row: Attachment, make: Callable[[], Any]
) -> Any:
    """What was made of *row* before, or what is made now."""
    found = known.get(row.key)
    if found is None or found[0] is not row:
        if len(known) >= _MOST_PARSED:
            known.clear()
        found = known[row.key] = row, make()
    return found[1]


def _placed(row: Attachment, backend: StorageBackend[Any], connection: Any) -> Any:
    if (now := backend.link_name(connection)) == row.link:
        return connection
    if isinstance(backend, Placing):
        # The attachment says where it is; the options, where new ones come. Served under the new
        # name, the link under the old one would leak, and its guests name the old path.
        return backend.at(connection, row.link)
    raise Refused(
        f"volume {row.key.volume} was connected at {row.link},"
        f" which the configuration now puts at {now}",
        hint="set the option back until the volume is detached",
    )
