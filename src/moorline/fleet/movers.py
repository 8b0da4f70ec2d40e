"""What a host's agent puts between its passes and its hypervisor."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from moorline.errors import MoorlineError, Refused, Uncertain
from moorline.model import GuestId
from moorline.ports import GuestLifecycle, Hypervisor
from moorline.ports.moving import GuestMover, Presence, Present


class Sending:
    """A :class:`GuestMover` that sends guests beside the passes, as many as it is told at once.

    Until one has gone, :meth:`send` raises Uncertain: it is on its way.
    """

    def __init__(self, mover: GuestMover) -> None:
        self._mover = mover
        self.ended: Callable[[], None] = lambda: None
        """Called when one has gone, or does not go."""
        self._lock = threading.Lock()
        self._under_way: set[GuestId] = set()
        self._failed: dict[GuestId, tuple[str, MoorlineError]] = {}
        self.definition = mover.definition
        self.define = mover.define
        self.undefine = mover.undefine
        self.start = mover.start
        self.stop = mover.stop
        self.resume = mover.resume

    def present(self) -> Mapping[GuestId, Present]:
        """As it is, but that a guest which is being sent runs: its pause is the hypervisor's."""
        with self._lock:
            going = set(self._under_way)  # before the look: one that has gone by then is not there
        return {
            guest: replace(each, presence=Presence.RUNNING) if guest in going else each
            for guest, each in self._mover.present().items()
        }

    def send(self, guest: GuestId, host: str) -> None:
        """Begin, or tell once what came of it."""
        with self._lock:
            if guest in self._under_way:
                raise Uncertain(f"guest {guest} is on its way to {host}")
            to, error = self._failed.pop(guest, ("", None))
            if error is not None and to == host:
                raise error
            self._under_way.add(guest)
        threading.Thread(target=self._send, args=[guest, host], name="sending", daemon=True).start()
        raise Uncertain(f"guest {guest} is on its way to {host}")

    def _send(self, guest: GuestId, host: str) -> None:
        error: MoorlineError | None = None
        try:
            self._mover.send(guest, host)
        except MoorlineError as e:
            error = e
        except Exception as e:  # noqa: BLE001 - a defect: whether it went is not known
            error = Uncertain(f"a defect of Moorline's, met by sending {guest}: {e}")
        with self._lock:
            self._under_way.discard(guest)
            if error is not None:
                self._failed[guest] = host, error
        self.ended()


class Staying:
    """A :class:`GuestMover` of a hypervisor whose guests cannot go to another host."""

    def __init__(self, hypervisor: Hypervisor, lifecycle: GuestLifecycle[Any] | None) -> None:
        self._hypervisor = hypervisor
        self._lifecycle = lifecycle

    def present(self) -> Mapping[GuestId, Present]:
        """As a survey shows them. One whose state is unknown runs."""
        return {
            each.id: Present(each.name, Presence.RUNNING if each.running else Presence.STOPPED)
            for each in self._hypervisor.survey()
        }

    def definition(self, guest: GuestId) -> bytes:
        """Raises Refused."""
        raise self._stays(guest)

    def define(self, guest: GuestId, definition: bytes) -> None:
        """Raises Refused."""
        raise self._stays(guest)

    def undefine(self, guest: GuestId) -> None:
        """Raises Refused."""
        raise self._stays(guest)

    def start(self, guest: GuestId) -> None:
        """Boot it. Raises NotFound, Refused (this hypervisor's guests are not started by us)."""
        self._able(guest).start(guest)

    def stop(self, guest: GuestId) -> None:
        """Cut its power. Raises Refused, as :meth:`start`."""
        self._able(guest).stop(guest, force=True)

    def resume(self, guest: GuestId) -> None:
        """No copy ever arrives here."""

    def send(self, guest: GuestId, host: str) -> None:
        """Raises Refused."""
        raise self._stays(guest)

    def _able(self, guest: GuestId) -> GuestLifecycle[Any]:
        if self._lifecycle is None:
            raise self._stays(guest)
        return self._lifecycle

    def _stays(self, guest: GuestId) -> Refused:
        return Refused(f"{self._hypervisor.kind} guests stay on their host, and so does {guest}")
