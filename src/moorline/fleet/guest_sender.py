"""Sends guests beside a host's passes: those must go on meanwhile, and report at once what came."""

from __future__ import annotations

import threading
from collections.abc import Callable

from moorline.errors import MoorlineError, NotFound, Uncertain
from moorline.model import GuestId
from moorline.ports.moving import GuestMover, Presence


class Sending:
    """A :class:`GuestMover` that sends guests as many as it is told at once, and waits for none.

    Until one has gone, :meth:`send` raises Uncertain: it is on its way.
    """

    def __init__(self, mover: GuestMover) -> None:
        self.ended: Callable[[], None] = lambda: None
        """Called when one has gone, or does not go. Must not block."""
        self._mover = mover
        self._lock = threading.Lock()
        self._under_way: dict[GuestId, Uncertain] = {}
        """How far each has come."""
        self._failed: dict[GuestId, tuple[str, MoorlineError]] = {}
        self.present = mover.present
        self.definition = mover.definition
        self.define = mover.define
        self.undefine = mover.undefine
        self.start = mover.start
        self.stop = mover.stop
        self.resume = mover.resume

    def send(self, guest: GuestId, host: str) -> None:
        """Begin, or say how far it is, or once why it did not go."""
        begun = Uncertain(f"guest {guest} is on its way to {host}")
        with self._lock:
            if guest in self._under_way:
                raise self._under_way[guest]
            to, error = self._failed.pop(guest, ("", None))
            if error is not None and to == host:
                raise error
            self._under_way[guest] = begun
        threading.Thread(target=self._send, args=[guest, host], name="sending", daemon=True).start()
        raise begun

    def _send(self, guest: GuestId, host: str) -> None:
        error: MoorlineError | None = None
        try:
            while (unknown := self._try(guest, host)) is not None:
                self._under_way[guest] = unknown
                # Whatever else it is, such as a copy that is left paused, a pass deals with.
                found = self._mover.present().get(guest)
                if found is None or found.presence is not Presence.RUNNING:
                    break
        except NotFound:
            pass
        except MoorlineError as e:
            error = e
        except Exception as e:  # noqa: BLE001 - a defect: whether it went is not known
            error = Uncertain(f"a defect of Moorline's, met by sending {guest}: {e}")
        with self._lock:
            del self._under_way[guest]
            if error is not None:
                self._failed[guest] = host, error
        self.ended()

    def _try(self, guest: GuestId, host: str) -> Uncertain | None:
        """Send it, or wait for it. Not None: it may be on its way still."""
        try:
            self._mover.send(guest, host)
        except Uncertain as e:
            return e
        return None
