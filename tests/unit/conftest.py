"""What many unit tests start from: a toy host, its loop, and calls to libvirt that hang."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.support.rig import Rig
from tests.support.toy_loop import Loop, running

if TYPE_CHECKING:
    from moorline.hypervisors.libvirt.connection import Connection


@pytest.fixture
def rig() -> Rig:
    """A toy host with two guests."""
    return Rig("g1", "g2")


@pytest.fixture
def loop(rig: Rig) -> Iterator[Loop]:
    """The loop of that host, started."""
    with running(rig) as loop:
        yield loop


@pytest.fixture
def libvirt_connection() -> Iterator[Connection]:
    """To libvirt's own test driver, with a short deadline."""
    from moorline.hypervisors.libvirt.connection import Connection
    from tests.support.libvirt_calls import DEADLINE, URI

    connection = Connection(URI, DEADLINE)
    yield connection
    connection.close()


@pytest.fixture
def may_return() -> Iterator[threading.Event]:
    """Calls that hang return when it is set; it is at the end."""
    event = threading.Event()
    yield event
    event.set()
