"""Sees to it, in an agent, that a volume service learns what became of what it gave."""

from __future__ import annotations

import logging
import threading

from moorline.core.connection_renewal import ConnectionRenewer
from moorline.core.reservations import Reservations
from moorline.errors import MoorlineError
from moorline.ports import Wake

EVERY_SECONDS = 15.0
_log = logging.getLogger(__name__)


class ReservationKeeper:
    """Settles what commands left, such as one that was killed, and renews connections.

    Where there is nothing, nobody asks. It is a :class:`moorline.ports.Watching` that wakes nobody,
    so that it has a thread of its own: a service that hangs delays no attachment.
    """

    def __init__(
        self,
        reservations: Reservations,
        renewer: ConnectionRenewer,
        every: float = EVERY_SECONDS,
    ) -> None:
        self._reservations = reservations
        self._renewer = renewer
        self._every = every

    def watch(self, wake: Wake, stop: threading.Event) -> None:
        while not stop.wait(self._every):
            try:
                keys = self._reservations.keys()
                for key, why in self._reservations.settle_all(keys):
                    _log.warning("Cinder is not in step for volume %s: %s", key.volume, why)
                self._renewer.renew_all(
                    keys,
                    lambda key, why: _log.warning(
                        "no new connection of volume %s: %s", key.volume, why
                    ),
                )
            except MoorlineError as e:
                _log.warning("the reservations cannot be read: %s", e)
            except Exception:  # noqa: BLE001 - a defect must not end what keeps the others
                _log.exception("a defect, met by the reservations")
