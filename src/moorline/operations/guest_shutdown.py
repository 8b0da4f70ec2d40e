"""Shuts a guest down, or cuts its power, and waits until it does not run."""

from __future__ import annotations

from typing import Any

from moorline.core.reconciler import Reconciler
from moorline.deadline import Deadline
from moorline.errors import Failed, NotFound
from moorline.ports.api import Progress
from moorline.ports.guests import GuestLifecycle, GuestState

SHUTDOWN_RETRY_SECONDS = 5.0
"""Seconds between two requests to shut down: a guest that still boots ignores them."""
_ASKED = {False: "was asked to shut down", True: "had its power cut"}
_POLL_SECONDS = 0.05


def bring_down(
    machine: GuestState,
    lifecycle: GuestLifecycle[Any],
    reconciler: Reconciler,
    force: bool,
    deadline: Deadline,
    progress: Progress,
) -> None:
    """Ask *machine* to stop until it has. *force*: cut its power.

    Raises Failed (it runs still when the deadline is over), Uncertain, Unavailable.
    """
    name, id = machine.guest.name, machine.guest.id
    ask = Deadline(0.0)
    while machine.running or machine.saved:
        if ask.over():
            progress(f"stopping {name}")
            with reconciler.with_guest(id):
                lifecycle.stop(id, force=force)
            ask = Deadline(SHUTDOWN_RETRY_SECONDS)
        if deadline.over():
            raise Failed(
                f"{name} {_ASKED[force]} and still runs; it is not removed",
                hint="" if force else "--force cuts its power",
            )
        deadline.sleep(_POLL_SECONDS)
        try:
            machine = lifecycle.look(id)
        except NotFound:
            return  # it was transient: it had no definition
