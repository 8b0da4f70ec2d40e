"""Shuts a guest down, or cuts its power, and waits until it does not run."""

from __future__ import annotations

from typing import Any

from moorline.core.reconciler import Reconciler
from moorline.deadline import Deadline, waited_for
from moorline.errors import Failed, NotFound, Uncertain
from moorline.ports.guests import GuestLifecycle, GuestState
from moorline.ports.progress import Progress

SHUTDOWN_RETRY_SECONDS = 5.0
"""Seconds between two requests to shut down: a guest that still boots ignores them."""
_SILENT_RETRY_SECONDS = 1.0
"""The same where the hypervisor does not answer, which may come late."""
_STOPPED = {False: "was asked to shut down", True: "had its power cut"}
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

    Raises Failed (it runs still when the deadline is over), Uncertain, Unavailable. Where the
    hypervisor does not answer (a share under the guest hangs, say), that is told meanwhile.
    """
    name, id = machine.guest.name, machine.guest.id
    ask = Deadline(0.0)
    silent: Uncertain | None = None
    while machine.running or machine.saved:
        if ask.over():
            progress(f"stopping {name}" if silent is None else f"{silent.message}; waiting for it")
            try:
                with reconciler.with_guest(id), waited_for(Deadline(_answer_seconds(deadline))):
                    lifecycle.stop(id, force=force)
                silent, ask = None, Deadline(SHUTDOWN_RETRY_SECONDS)
            except Uncertain as e:
                silent, ask = e, Deadline(_SILENT_RETRY_SECONDS)
        if deadline.over():
            raise _not_stopped(name, silent, force)
        deadline.sleep(_POLL_SECONDS)
        try:
            machine = machine if silent else lifecycle.look(id)
        except NotFound:
            return  # it was transient: it had no definition


def _answer_seconds(deadline: Deadline) -> float:
    return min(SHUTDOWN_RETRY_SECONDS, deadline.left())


def _not_stopped(name: str, silent: Uncertain | None, force: bool) -> Failed | Uncertain:
    if silent is not None:
        return Uncertain(
            f"{name} {_STOPPED[force]}, and it is not known whether it stopped: {silent.message}",
            hint="a share that hangs under it keeps the hypervisor waiting: moorline doctor",
        )
    return Failed(
        f"{name} {_STOPPED[force]} and still runs; it is not removed",
        hint="" if force else "--force cuts its power",
    )
