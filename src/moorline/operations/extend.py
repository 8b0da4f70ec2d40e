"""extend: lets a guest see that its volume became larger, or makes it larger."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from moorline.byte_sizes import exact
from moorline.core.admission import Admission
from moorline.core.driver import nothing_recorded
from moorline.core.kept_disk import way_out
from moorline.core.name_lookup import BY_ID_OR_DEVICE
from moorline.core.reconciler import Reconciler
from moorline.core.retry_loop import Patience, Wait, drive, keeping_timeout
from moorline.deadline import Deadline
from moorline.errors import Failed, NotFound, Refused, Uncertain, told_about
from moorline.model import Attachment, GuestId, Seen, Sizes, VolumeId
from moorline.operations.grow import Grower, is_to_grow
from moorline.ports import ExtendingHypervisor, Hypervisor, ShowingServed
from moorline.ports.progress import Progress, no_progress
from moorline.ports.results import Extended


def size_to_come(volume: VolumeId, asked: int | None, seen: Sizes) -> int:
    """The bytes that the guest is to see: *asked*, or what the storage has.

    Raises Refused (it would shrink, or hide a part), Failed (the storage is
    not as large yet).
    """
    size = seen.storage if asked is None else asked
    if size is None:
        raise Refused(
            f"how large volume {volume} shall be is not said, and nobody else knows it",
            hint=f"it has {exact(seen.guest)} now: give a size",
        )
    if size < seen.guest:
        raise Refused(
            f"volume {volume} has {exact(seen.guest)}, and cannot shrink to {exact(size)}"
        )
    if seen.storage is not None and size > seen.storage:
        raise Failed(
            f"the storage of volume {volume} has only {exact(seen.storage)} of {exact(size)}",
            hint="extend it there: Moorline tells the guest of it",
        )
    if seen.storage is not None and size < seen.storage:
        raise Refused(
            f"the storage of volume {volume} has {exact(seen.storage)}:"
            f" no guest sees just {exact(size)}"
        )
    return size


class Extender:
    """extend of :class:`moorline.ports.api.Attachments`."""

    def __init__(
        self,
        reconciler: Reconciler,
        admission: Admission,
        hypervisor: Hypervisor,
        grower: Grower,
    ) -> None:
        self._reconciler = reconciler
        self._admission = admission
        self._hypervisor = hypervisor
        self._grower = grower

    @keeping_timeout
    def extend(
        self,
        guest: str,
        volume: str,
        size: int | None = None,
        *,
        grow: bool = False,
        timeout: float = 60.0,
        progress: Progress = no_progress,
        dry_run: bool = False,
    ) -> Extended:
        """See the protocol. Refused and NotOurs are raised at once, Failed and Uncertain
        when *timeout* seconds are over.
        """
        with nothing_recorded():
            row = self._admission.find(volume, guest)
        if row is None:
            raise NotFound(f"volume {volume} is not known on {guest}", hint=BY_ID_OR_DEVICE)
        with told_about(row.key.volume, row.guest_name):
            steps: list[str] = []
            before, after = self._bytes(
                row, size, timeout, progress, steps, grow=grow, dry_run=dry_run
            )
            seen = self._reconciler.observe(row)
        return Extended(steps, self._reconciler.view(row, seen), before, after)

    def _bytes(
        self,
        row: Attachment,
        asked: int | None,
        timeout: float,
        progress: Progress,
        steps: list[str],
        *,
        grow: bool,
        dry_run: bool,
    ) -> tuple[int, int]:
        """Return the bytes that the guest saw before, and those that it sees now (or would).

        What is done for it is added to *steps* (or would be).
        """
        hypervisor = self._hypervisor
        if not isinstance(hypervisor, ExtendingHypervisor):
            raise Refused(f"{hypervisor.kind} guests cannot be shown another size of a disk")
        saw: list[int] = []
        if grow and asked is None:
            raise Refused("how large the file is to become is not said")
        do = self._grow if grow else self._once
        once = partial(do, hypervisor, row, asked, saw, steps, dry_run=dry_run)
        came = drive(once, None if dry_run else Patience(Deadline(timeout), progress))
        if isinstance(came, Wait):
            assert came.error is not None, "it waits for nothing else"
            if steps or not isinstance(came.error, Uncertain):
                raise came.error
            with nothing_recorded():  # only looks were met
                raise came.error
        return saw[0], came

    def _demand_volume(self, row: Attachment) -> Seen:
        """Raise Refused if the guest's disk is not the volume, whose size would say nothing."""
        seen = self._reconciler.observe(row)
        if seen.diverged or seen.disk.stale:
            raise Refused(
                f"volume {row.key.volume} is not extended: {seen.elsewhere}",
                hint=way_out(row, seen) if seen.diverged else "moorline doctor",
            )
        return seen

    def _ways(self, hypervisor: ExtendingHypervisor, row: Attachment) -> _Ways:
        """Of a server's disk the server is asked, by what can be killed. Raises as that."""
        if isinstance(hypervisor, ShowingServed):
            stored = self._reconciler.size(row)
            if stored is not None:
                of = partial(hypervisor.served_sizes, stored=stored)
                return _Ways(
                    of, lambda guest, volume, _: hypervisor.show_served(guest, volume, stored)
                )
        return _Ways(hypervisor.sizes, hypervisor.extend)

    def _grow(
        self,
        hypervisor: ExtendingHypervisor,
        row: Attachment,
        asked: int | None,
        saw: list[int],
        steps: list[str],
        *,
        dry_run: bool,
    ) -> int:
        size = asked or 0
        with self._reconciler.with_guest(row.key.guest):
            self._grower.demand(row, self._demand_volume(row))
            has = self._grower.growable(row)
            saw.append(has.guest)
            if is_to_grow(row.key.volume, size, has):
                _note(steps, "grow")
                self._grower.grow(row, size, has, dry_run=dry_run)
                return size
            if size == has.guest:
                if has.running and not dry_run:
                    with suppress(Refused, Failed):  # nothing is owed
                        self._grower.grow(row, size, has, dry_run=False)
                return size
        # Somebody made the file larger before, perhaps we, and were killed.
        return self._once(hypervisor, row, size, saw, steps, dry_run=dry_run)

    def _once(
        self,
        hypervisor: ExtendingHypervisor,
        row: Attachment,
        asked: int | None,
        saw: list[int],
        steps: list[str],
        *,
        dry_run: bool,
    ) -> int:
        guest, volume = row.key.guest, row.key.volume
        with self._reconciler.with_guest(guest):
            self._demand_volume(row)
            sizes, show = self._ways(hypervisor, row)
            before = sizes(guest, volume)
            saw.append(before.guest)
            size = size_to_come(volume, asked, before)
            if size != before.guest:
                _note(steps, "extend")
            if dry_run:
                return size
            size = show(guest, volume, size)
            seen = sizes(guest, volume).guest
        if seen < size:
            raise Uncertain(
                f"{row.guest_name} was told of {exact(size)}, and still has {exact(seen)}"
            )
        return seen


class _Ways(NamedTuple):
    """How it is told how large a volume is, and how its guest is shown that."""

    sizes: Callable[[GuestId, VolumeId], Sizes]
    show: Callable[[GuestId, VolumeId, int], int]


def _note(steps: list[str], step: str) -> None:
    """Add *step*, which may be tried several times."""
    if step not in steps:
        steps.append(step)
