"""Begins the removal of a machine: nothing of others goes with it, now or later."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from pyVmomi import vim

from moorline.errors import Conflict, Failed, MoorlineError, NotFound, Refused
from moorline.hypervisors.vsphere import device_specs
from moorline.hypervisors.vsphere.client import tasks
from moorline.hypervisors.vsphere.client.properties import read
from moorline.hypervisors.vsphere.client.session import Session
from moorline.hypervisors.vsphere.giving import Giving
from moorline.hypervisors.vsphere.inventory import Inventory, Unconfigured
from moorline.hypervisors.vsphere.provision.machine_state import MachineState, Stage
from moorline.hypervisors.vsphere.virtual_machine import HALF, LEAVING, WHOLE

_TURNS = 3
"""Looks at a machine that others change again and again."""


class Removal:
    """Says on machines that they leave. *deadline*: seconds that a task may take."""

    def __init__(
        self,
        session: Session,
        inventory: Inventory,
        look: Callable[[str], MachineState],
        *,
        deadline: float,
    ) -> None:
        self._session = session
        self._inventory = inventory
        self._look = look
        self._giving = Giving(session, inventory, deadline=deadline)
        self._deadline = deadline

    def begin(self, name: str, seen: MachineState) -> tuple[MachineState, str]:
        """Say on the machine that it leaves: from then on nobody gives its disk to another.

        So it does no harm if it is destroyed later than anybody waits for it. Return it as it was
        seen last, and what :meth:`end` takes. Raises as :meth:`refuse`, NotFound.
        """
        for turn in range(_TURNS):
            if seen.machine is None:
                raise NotFound(f"there is no machine {name} any more")
            if seen.machine.given[0]:
                with suppress(Unconfigured):  # then it depends on where it has something
                    self._giving.settle(*seen.machine.given)
            self.refuse(name, seen)
            state = HALF if seen.never_whole else LEAVING
            spec, word = device_specs.launch_mark(seen.machine, state, seen.digest)
            try:
                self._change(f"machine {name} is not removed", seen, spec)
                return seen, word
            except Conflict:  # somebody gives its disk away, or removes it, too
                if turn == _TURNS - 1:
                    raise
                seen = self._look(name)
            except (Refused, Failed):
                self.end(name, seen, word)
                raise
        raise AssertionError("unreachable")

    def end(self, name: str, before: MachineState, word: str) -> None:
        """Take back what :meth:`begin` said, unless somebody else goes on with the removal.

        If that fails, the machine can only be removed, or be made anew.
        """
        if before.stage is Stage.HALF:
            return
        with suppress(MoorlineError):
            now = self._look(name)
            if now.machine is not None and now.machine.touched == word:
                spec, _ = device_specs.launch_mark(now.machine, WHOLE, now.digest)
                self._change(f"machine {name} leaves", now, spec)

    def _change(self, what: str, seen: MachineState, spec: Any) -> None:
        tasks.run(
            self._session, what, lambda: seen.ref.ReconfigVM_Task(spec), deadline=self._deadline
        )

    def refuse(self, name: str, seen: MachineState) -> None:
        """Refuse to destroy the machine if anything else would be lost with it."""
        if seen.attached:
            raise Refused(
                f"machine {name} has what would be destroyed with it: {', '.join(seen.attached)}",
                hint="detach them first",
            )
        self._refuse_used(name, seen)
        if not seen.never_whole:
            self._refuse_strays(name, seen)

    def _refuse_used(self, name: str, seen: MachineState) -> None:
        if users := self._inventory.users(seen.devices, besides=seen.ref):
            raise Refused(
                f"the disk of machine {name} is a disk of {', '.join(users)}, too",
                hint="detach it there first",
            )

    def _refuse_strays(self, name: str, seen: MachineState) -> None:
        """Refuse if other disks lie in its folder, which (on VVOL at least) goes with it."""
        what = f"the folder of machine {name} cannot be looked at"
        within = self._inventory.datacenter(seen.ref)
        store, _ = self._inventory.datastore(seen.home[1:].partition("] ")[0], within)
        browser = read(self._session, what, [store], vim.Datastore, ("browser",))[0][1]["browser"]
        wanted = vim.host.DatastoreBrowser.SearchSpec(
            matchPattern=["*.vmdk"], query=[vim.host.DatastoreBrowser.VmDiskQuery()]
        )
        try:
            found = tasks.run(
                self._session,
                what,
                lambda: browser.SearchDatastore_Task(seen.home, wanted),
                deadline=self._deadline,
            )
        except Refused as error:
            if isinstance(error.__cause__, vim.fault.FileNotFound):
                return  # nothing is in it: who was killed at this had asked for it, and it has gone
            raise
        files = {f"{seen.home}/{file.path}" for file in found.file}
        known = {part for disk in seen.disks for part in (disk, _flat(disk))}
        if strays := sorted(f for f in files - known if _flat(f) != f):
            raise Refused(
                f"there are other disks in the folder of machine {name}: {', '.join(strays)}",
                hint="move them elsewhere first",
            )


def _flat(disk: str) -> str:
    """The file with the disk's bytes, beside its description."""
    return disk if disk.endswith("-flat.vmdk") else disk.replace(".vmdk", "-flat.vmdk")
