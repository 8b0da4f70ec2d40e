"""Runs tasks, and follows them by the updates that vCenter pushes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from pyVmomi import vim, vmodl

from moorline.deadline import Deadline
from moorline.errors import Failed, MoorlineError, Refused, Uncertain
from moorline.hypervisors.vsphere.client.failures import BREAKS, failure
from moorline.hypervisors.vsphere.client.properties import collector, read
from moorline.hypervisors.vsphere.client.session import Session

Progress = Callable[[int], None]
"""Told the percentage that is done, as it changes."""

_LEAVES = ("info.state", "info.progress", "info.error", "info.result")
"""Only what is needed: reading TaskInfo whole fails in pyVmomi where its
``entity`` is not what the schema says (https://github.com/vmware/govmomi/issues/1357)."""
_WAIT_SECONDS = 10
"""Seconds that vCenter may keep a question open, well below a call's deadline."""
_RECONNECT_SECONDS = 1.0
"""Seconds between a broken connection and the next try to follow a task."""
_STATES = vim.TaskInfo.State


def no_progress(percent: int) -> None:
    """A :data:`Progress` that does nothing."""


def run(
    session: Session,
    what: str,
    start: Callable[[], Any],
    *,
    deadline: float,
    progress: Progress = no_progress,
) -> Any:
    """Start a task, follow it to its end, return its result.

    A failed task raises the family of its fault; it may have done something all the same,
    so look. Raises as :meth:`Session.change` does, and Uncertain if the task did not end
    within *deadline* seconds: it goes on without us.
    """
    task = session.change(what, start)
    end = Deadline(deadline)
    known: dict[str, Any] = {}
    try:
        known.update(read(session, what, [task], vim.Task, _LEAVES)[0][1])
        while known.get("info.state") not in (_STATES.success, _STATES.error):
            if end.over():
                raise Uncertain(f"{what}: its task has not ended after {deadline:.0f} s")
            _follow(session, what, task, known, end, progress)
    except (Refused, Failed) as error:
        # The task was started, and an error in asking about it does not undo it.
        raise Uncertain(error.message, hint=error.hint) from error
    if known["info.state"] == _STATES.error:
        fault = known["info.error"]
        raise failure(what, fault, sent=True) from fault
    return known.get("info.result")


def _follow(
    session: Session,
    what: str,
    task: Any,
    known: dict[str, Any],
    end: Deadline,
    progress: Progress,
) -> None:
    """Take updates into *known* until the task, the session or the connection ends."""
    mine = session.ask(what, lambda: session.content.propertyCollector.CreatePropertyCollector())
    wanted = collector.FilterSpec(
        objectSet=[collector.ObjectSpec(obj=task, skip=False)],
        propSet=[collector.PropertySpec(type=vim.Task, pathSet=list(_LEAVES), all=False)],
    )
    try:
        session.ask(what, lambda: mine.CreateFilter(wanted, True))
        version = ""
        while known.get("info.state") not in (_STATES.success, _STATES.error):
            if end.over():
                return
            left = max(1, min(_WAIT_SECONDS, int(end.left())))
            updates = mine.WaitForUpdatesEx(version, collector.WaitOptions(maxWaitSeconds=left))
            if updates is not None:
                version = updates.version
                _take(updates.filterSet, known)
                if isinstance(known.get("info.progress"), int):
                    progress(known["info.progress"])
    except (vim.fault.NotAuthenticated, vmodl.fault.ManagedObjectNotFound):
        # The collector went with its session. What it missed is read anew.
        known.update(read(session, what, [task], vim.Task, _LEAVES)[0][1])
    except BREAKS:
        # Nor does a cut connection end the task: it is asked about again, after a pause.
        time.sleep(_RECONNECT_SECONDS)
        known.update(read(session, what, [task], vim.Task, _LEAVES)[0][1])
    except vmodl.MethodFault as error:
        raise failure(what, error, sent=True) from error
    finally:
        with suppress(MoorlineError):
            session.ask(what, mine.DestroyPropertyCollector)


def _take(filters: Sequence[Any], known: dict[str, Any]) -> None:
    for one in filters:
        for update in one.objectSet:
            for change in update.changeSet:
                known[change.name] = change.val
