"""Launching a guest that is there already: with its own volumes, or not at all."""

from __future__ import annotations

from collections.abc import Sequence

from moorline.core.admission import Admission
from moorline.core.records import Records
from moorline.errors import Refused
from moorline.model import NO_DISK, Attachment, DiskOptions, Level
from moorline.operations.guest_options import Volume, options_at
from moorline.ports import Hypervisor
from moorline.ports.guests import GuestState


class Relaunch:
    """Tells whether a repeated launch asks for what its guest has."""

    def __init__(self, records: Records, admission: Admission, hypervisor: Hypervisor) -> None:
        self._records = records
        self._admission = admission
        self._hypervisor = hypervisor

    def refuse_other_volumes(
        self,
        machine: GuestState,
        volumes: Sequence[Volume],
        options: DiskOptions,
        *,
        vouched: bool,
    ) -> None:
        """Raise Refused unless *volumes*, the boot volume first, go with what *machine* has.

        A launch that was interrupted may have come to some of them, and to nothing else; what was
        attached after a launch is beside all of them. Raises as :meth:`Admission.make`.
        """
        wanted = [row for row in self._records.all() if row.key.guest == machine.guest.id]
        wanted = [row for row in wanted if row.want > Level.ABSENT]
        if not volumes or not wanted:
            return
        boots = self._booted_from(machine, [row for row in wanted if not row.link_only])
        asked = []
        for place, (connection, format) in enumerate(volumes):
            its = options_at(place, options, machine.boot)
            _, row = self._admission.make(
                machine.guest, connection, format, None, Level.ATTACHED, its, vouched=vouched
            )
            if place == 0 and boots and boots.key != row.key:
                raise Refused(
                    f"{machine.guest.name} boots from volume {boots.key.volume} already",
                    hint=f"moorline detach {machine.guest.name} {boots.key.volume}",
                )
            asked.append(row.key)
        known = {row.key for row in wanted}
        missing = [key for key in asked[1:] if key not in known]
        if missing and (machine.running or not known <= {*asked}):
            raise Refused(
                f"{machine.guest.name} was launched without volume {missing[0].volume}",
                hint="moorline attach gives a guest one more",
            )

    def _booted_from(self, machine: GuestState, wanted: Sequence[Attachment]) -> Attachment | None:
        """Which of *wanted* the guest boots from; None: none of them.

        Without places in the boot order it is the first disk, or the first that was asked for.
        """
        if machine.boot:
            first = [row for row in wanted if row.options.boot]
            return min(first, key=lambda row: row.options.boot, default=None)
        disks = self._hypervisor.disks(machine.guest.id)

        def place(row: Attachment) -> tuple[bool, int, str, float]:
            device = disks.get(row.key.volume, NO_DISK).device
            return not device, len(device), device, row.since

        return min(wanted, key=place, default=None)
