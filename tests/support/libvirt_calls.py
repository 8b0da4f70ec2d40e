"""Calls to libvirt's own test driver that hang for as long as a test wants."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from moorline.errors import Uncertain
from moorline.hypervisors.libvirt.connection import Connection

URI = "test:///default"
DEADLINE = 0.3


def hang(connection: Connection, subject: str, may_return: threading.Event) -> None:
    """Let a call about *subject* hang until *may_return* is set."""
    with pytest.raises(Uncertain, match=r"did not answer within 0\.\d s"):
        connection.change(subject, lambda virt: may_return.wait())


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)
