"""Locks the disks that belong to a guest alone while they are destroyed with it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from moorline.core.reconciler import Reconciler
from moorline.ports.guests import GuestState


def kept(
    reconciler: Reconciler, guest: GuestState | None, timeout: float | None = None
) -> AbstractContextManager[None]:
    """As :meth:`moorline.core.file_checks.FileChecks.destroying`; *guest*: None: there is none."""
    if guest is None:
        return nullcontext()
    return reconciler.files.destroying(guest.guest.id, guest.disks, timeout)
