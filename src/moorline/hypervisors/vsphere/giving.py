"""Keeps a disk for one machine, whatever other hosts are doing: all of it is written in vCenter.

Whoever gives away the disk of a machine that Moorline made says so on that machine first, and
whoever removes the machine says that it leaves. Both name the machine's version as they saw it, so
that vCenter turns down the one who comes second.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from moorline.errors import Conflict, Failed, NotFound, Refused, Unavailable, Uncertain
from moorline.hypervisors.vsphere import device_specs
from moorline.hypervisors.vsphere.client import tasks
from moorline.hypervisors.vsphere.client.session import Session
from moorline.hypervisors.vsphere.inventory import Inventory, Unconfigured
from moorline.hypervisors.vsphere.virtual_machine import Machine
from moorline.model import GuestId


@dataclass(frozen=True, slots=True)
class FreeDisk:
    """A disk that a machine may be given."""

    path: str
    uuid: str
    names: set[str]
    """All that it goes by: :func:`moorline.hypervisors.vsphere.virtual_machine.names`."""
    shared: bool
    """Others may have it, too, if they share it."""
    owners: Sequence[Machine]
    """Machines that Moorline made, with which it goes."""

    def refuse_others(self, machine: Machine, all: Sequence[Machine]) -> None:
        """Refuse to give it to *machine* if another one of *all* has it, unless both share it.

        A machine that only holds a disk does not count. For one that cannot be read, vCenter's
        locks decide.
        """
        for owner in self.owners:
            owner.demand_that_it_stays(self.path)
        for other in all:
            if other.ref == machine.ref or other.holds:
                continue
            if any(self.names & d.names and not (self.shared and d.shared) for d in other.devices):
                raise Refused(
                    f"{self.path} is a disk of {other.name} already",
                    hint="detach it there, or attach it as shared to both",
                )


def disk_owners(names: set[str], all: Sequence[Machine]) -> list[Machine]:
    """The machines of *all* that Moorline made with the disk of these *names*."""
    return [m for m in all if m.launch and any(names & device.names for device in m.devices)]


class Giving:
    """Says who gets a disk. *deadline*: seconds that a task may take."""

    def __init__(self, session: Session, inventory: Inventory, *, deadline: float) -> None:
        self._session = session
        self._inventory = inventory
        self._deadline = deadline

    def announce(self, owner: Machine, machine: Machine, disk: FreeDisk) -> None:
        """Say that *disk* of *owner* goes to *machine*, which is changed as it was seen, then.

        Raises Conflict if *owner* is not as it was seen, Refused if it has gone to somebody else
        meanwhile, Failed; nobody was given anything.
        """
        what = f"the disk of {owner.name} is not given to {machine.name}"
        try:
            guest, version = owner.given
            if guest not in ("", machine.id):
                with suppress(Unconfigured):
                    before = self.settle(guest, version)
                    disk.refuse_others(machine, [before] if before else [])
            self._change(what, owner, device_specs.give(owner, machine))
        except Uncertain as error:
            raise Unavailable(error.message, hint=error.hint) from error

    def settle(self, guest: GuestId, version: str | None = None) -> Machine | None:
        """Return how the machine is once no change of it that was asked for earlier can come.

        *version*: only such changes matter as name that one. None: there is no such machine.
        vCenter makes a machine's changes one by one, and turns down what names an older version
        than that after a change of ours. Raises Unconfigured, Unavailable,
        Uncertain.
        """
        try:
            machine = self._inventory.machine(guest)
            if version in (None, machine.version):
                what = f"it is not known what becomes of an earlier change of {machine.name}"
                self._touch(what, machine)
                machine = self._inventory.machine(guest)
            return machine
        except NotFound:
            return None

    def _touch(self, what: str, machine: Machine) -> None:
        try:
            self._change(what, machine, device_specs.touch(machine))
        except NotFound:
            raise
        except Conflict:
            pass  # another change was made meanwhile, which has done the same
        except (Refused, Failed) as error:
            raise Uncertain(error.message, hint=error.hint or "try again") from error

    def _change(self, what: str, machine: Machine, spec: Any) -> None:
        tasks.run(
            self._session,
            what,
            lambda: machine.ref.ReconfigVM_Task(spec),
            deadline=self._deadline,
        )
