"""What a back end is tried with: subclass it for a back end, and give it to its contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from moorline.model import Link, Linked
from moorline.ports import Mount, Mounting, StorageBackend

Connection = Mapping[str, Any]


class BackendRig:
    """A back end, connections for it, and hands on the world that it works in.

    Subclass it for a back end. What the back end cannot suffer stays as it is
    here, and the tests that need it are skipped. ``tear_down`` is the owner's.
    """

    backend: StorageBackend[Any]
    good: Connection
    """Of a volume that exists."""
    sibling: Connection | None = None
    """Of another volume on the same link."""
    respelled: Sequence[Connection] = ()
    """Other spellings of *good*: the same link."""
    other: Connection
    """Of a volume on another link, which exists too."""
    missing: Connection
    """On the link of *good*, of a volume that does not exist."""
    unfit: Mapping[str, Connection] = {}
    """Connections on the link of *good* that :meth:`verify` refuses, each by its vice."""
    hostile: Mapping[str, Connection] = {}
    """Connections that :meth:`parse` refuses, each by its vice."""
    secrets: Sequence[str] = ()
    """Texts in *good* that no link name may bear."""
    given: bool = False
    """There is no link to make: it is always there."""
    told_by_place: bool = True
    """Where a disk is tells which volume it is, if the back end recognises disks."""
    ready_at_once: bool = True
    """What the back end says is ready is so by one question; False: these volumes need more."""
    patience: float = 5.0
    """Seconds within which a look at a share that hangs must be over."""

    def world(self) -> object:
        """All that the back end could have changed, as a value to compare."""
        raise NotImplementedError

    def mounts(self) -> Sequence[Mount]:
        """The mount table."""
        return ()

    def kill(self) -> None:
        """Break the link of *good*: it is there, but does not work."""
        pytest.skip("this back end's links do not break")

    def hang(self) -> None:
        """Make the link of *good* hang."""
        pytest.skip("this back end's links do not hang")

    def heal(self) -> None:
        """Undo :meth:`hang`."""

    def usurp(self) -> None:
        """Put something foreign where the link of *good* would be."""
        pytest.skip("nothing foreign can take this back end's place")

    def remove(self) -> None:
        """Take the link of *good* away behind the back end's back."""
        pytest.skip("this back end's links cannot be removed")


def look(rig: BackendRig, connection: Connection) -> Link:
    """Inspect an unparsed connection. What works lies on a mount that the back end tells."""
    backend, parsed = rig.backend, rig.backend.parse(connection)
    link = backend.inspect(parsed)
    if isinstance(link, Linked) and isinstance(backend, Mounting):
        assert backend.mounted(parsed)
    return link


def connect(rig: BackendRig, connection: Connection) -> None:
    """Connect an unparsed connection."""
    rig.backend.connect(rig.backend.parse(connection))


def disconnect(rig: BackendRig, connection: Connection) -> None:
    """Disconnect an unparsed connection."""
    rig.backend.disconnect(rig.backend.parse(connection))
