"""The links of attachments, by their back ends."""

from __future__ import annotations

from typing import Any

from moorline.errors import Refused
from moorline.model import Attachment, Key, Link
from moorline.ports import Backends, Placing, StorageBackend

_MOST_PARSED = 4096


class Links:
    """Tells how an attachment's link is. Safe to use from as many threads as *backends*."""

    def __init__(self, backends: Backends) -> None:
        self.backends = backends
        self._parsed: dict[Key, tuple[Attachment, Any]] = {}
        """Connections that were parsed already: the same attachment reads the same."""

    def by(self, backends: Backends) -> Links:
        """The same links, asked of other instances of the same back ends."""
        same = Links(backends)
        same._parsed = self._parsed
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
        backend = self.backend(row.backend)
        known = self._parsed.get(row.key)
        if known is None or known[0] is not row:
            if len(self._parsed) >= _MOST_PARSED:
                self._parsed.clear()
            known = self._parsed[row.key] = row, _parse(row, backend)
        return backend, known[1]


def _parse(row: Attachment, backend: StorageBackend[Any]) -> Any:
    connection = backend.parse(row.connection.reveal())
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
