"""Tells whether a guest may be removed: ours, and with nothing that somebody else would miss."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from typing import Any

from moorline.core.admission import Admission
from moorline.core.reconciler import Reconciler
from moorline.core.records import Records
from moorline.errors import NotOurs
from moorline.model import Attachment, GuestId
from moorline.ports.guests import GuestLifecycle, GuestState

LaunchedElsewhere = Callable[[GuestId], str]
"""The directory of another state on this host that launched the guest; '': none. Raises
Unavailable, Denied (one cannot be read)."""


def nowhere(guest: GuestId) -> str:
    """A :data:`LaunchedElsewhere` of a host without other states."""
    return ""


class Removal:
    """Refuses removals, before anything is changed."""

    def __init__(
        self,
        records: Records,
        reconciler: Reconciler,
        admission: Admission,
        launched_elsewhere: LaunchedElsewhere,
    ) -> None:
        self._records = records
        self._reconciler = reconciler
        self._admission = admission
        self._launched_elsewhere = launched_elsewhere

    def refuse(
        self,
        lifecycle: GuestLifecycle[Any],
        machine: GuestState | None,
        rows: Sequence[Attachment],
        *,
        any: bool,
    ) -> None:
        """Raise what keeps *machine* (None: it is gone) and its attachments from being removed.

        *any*: whoever made it. Raises NotOurs, Refused, Unavailable, Uncertain, Denied.
        """
        if machine is not None:
            if not any:
                self._refuse_stranger(lifecycle, machine)
            if machine.running or machine.saved or rows:  # else removing raises it as early
                lifecycle.check_removal(machine.guest.id)
            self._admission.demand_released_takeable(machine.guest)
        for row in rows:
            self._admission.demand_release(row)
            self._reconciler.demand_takeable(row)

    def _refuse_stranger(self, lifecycle: GuestLifecycle[Any], machine: GuestState) -> None:
        id, name = machine.guest
        here = ""
        if not machine.launched:
            why = "was not launched by Moorline, and is not removed"
        elif others := self._admission.unrecorded_disks(id):
            why = f"has volumes that this state has no record of: {', '.join(others)}"
        elif directory := self._of_another(id):
            why = f"was launched by the state in {directory}"
            here = shlex.join(["moorline", "remove", "--state-dir", directory, name])
        else:
            return
        named = {option.key for option in lifecycle.launching.removal.each}
        ways = [here, "--any removes it all the same" if "any" in named else ""]
        raise NotOurs(f"{name} {why}", hint="; ".join(filter(None, ways)))

    def _of_another(self, guest: GuestId) -> str:
        return "" if self._records.has_launched(guest) else self._launched_elsewhere(guest)
