"""What identifies a storage, however its connection spells it. Pure."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import Any

from moorline.errors import Refused
from moorline.model import Attachment
from moorline.ports import Sharing
from moorline.ports.volume_service import SCHEME, is_named

Read = Callable[[Attachment], tuple[object, Any]]
"""The back end of an attachment, and its parsed connection. Raises Refused."""

_PLACES = uuid.UUID("6d6f6f72-6c69-5e65-8076-6f6c756d6573")


def shares(backend: object, parsed: Any) -> frozenset[str]:
    """All names of its share; none: its link identifies it."""
    return backend.shares(parsed) if isinstance(backend, Sharing) else frozenset()


def files(shares: AbstractSet[str], name: str) -> frozenset[str]:
    """All names of a file on a share: a file ``a/b`` of HOST:/srv is ``b`` of HOST:/srv/a."""
    return frozenset(f"{share.rstrip('/')}/{name}" for share in shares)


def name_one_file(backend: object, parsed: Any, shares_: AbstractSet[str], name: str) -> bool:
    """Whether a connection names the file *name* of the share that is called *shares_*."""
    if parsed.name.rpartition("/")[2] != name.rpartition("/")[2]:
        return False  # most are told apart by this, at little cost
    return not files(shares(backend, parsed), parsed.name).isdisjoint(files(shares_, name))


def places(kind: str, shares: AbstractSet[str], name: str) -> frozenset[str]:
    """A place for each spelling of a file on a share; two of one storage have one in common."""
    by_share = {derived(kind, share, name) for share in shares}
    return frozenset(by_share | {derived(kind, "", file) for file in files(shares, name)})


def places_at(path: str, rows: Iterable[Attachment], read: Read) -> frozenset[str]:
    """Those of the file at *path* on this host, if it is on the share of one of *rows*."""
    found: set[str] = set()
    for row in rows:
        if path.startswith(f"{row.link}/"):
            with suppress(Refused):  # its connection does not fit the configuration any more
                backend, parsed = read(row)
                name = path.removeprefix(f"{row.link}/")
                found |= places(row.backend, shares(backend, parsed), name)
    return frozenset(found)


def derived(*parts: str) -> str:
    """An id for what has none."""
    return str(uuid.uuid5(_PLACES, "\n".join(parts)))


def typed_kind(text: str) -> str:
    """The kind of storage that a URL or a path is of, as a person types it. Raises Refused."""
    if is_named(text):
        raise Refused(
            "a volume of Cinder's is taken by its name by attach, adopt, launch and apply",
            hint=f"once the guest is there: moorline attach GUEST {SCHEME}VOLUME",
        )
    scheme, colon, _ = text.partition("://")
    return scheme if colon and scheme != "file" else "local"
