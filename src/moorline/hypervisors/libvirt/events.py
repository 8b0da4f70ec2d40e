"""libvirt's events: guests that start, stop, come and go; disks that guests let go."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from typing import Any

from moorline.errors import MoorlineError
from moorline.hypervisors.libvirt.connection import module, open_with_events
from moorline.model import GuestId
from moorline.ports import Wake

_RECONNECT_SECONDS = 0.5
"""Seconds between two tries to reach libvirtd."""
_PINGS = (5, 3)
"""libvirtd is taken to be gone after so many unanswered pings, so many seconds apart."""
_log = logging.getLogger(__name__)


def watch(uri: str, wake: Wake, stop: threading.Event) -> None:
    """See :meth:`moorline.ports.Watching.watch`. Has a connection of its own.

    Events of the time without a connection are lost, so all are woken whenever one
    is made.
    """
    while not stop.is_set():
        try:
            _listen(uri, wake, stop)
        except MoorlineError as e:
            _log.error("there are no events of guests: %s", e)
            stop.wait(60)
        stop.wait(_RECONNECT_SECONDS)


def _listen(uri: str, wake: Wake, stop: threading.Event) -> None:
    """Tell what happens until the connection breaks."""
    virt = module()
    broken = threading.Event()

    def of(connection: Any, domain: Any, *_: Any) -> None:
        wake(GuestId(domain.UUIDString()))

    with suppress(virt.libvirtError):
        connection = open_with_events(uri)
        try:
            connection.registerCloseCallback(lambda *_: broken.set(), None)
            for event in (
                virt.VIR_DOMAIN_EVENT_ID_LIFECYCLE,
                virt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED,
                virt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVAL_FAILED,
            ):
                connection.domainEventRegisterAny(None, event, of, None)
            with suppress(virt.libvirtError):  # drivers in this process have no pings
                connection.setKeepAlive(*_PINGS)
            wake(None)
            while not stop.is_set() and not broken.wait(_RECONNECT_SECONDS):
                pass
        finally:
            connection.close()
