"""The hypervisor ``vsphere``: VMDKs become disks of a vCenter's virtual machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pyVmomi import vim

from moorline.byte_sizes import exact
from moorline.errors import (
    Conflict,
    Failed,
    MoorlineError,
    NotFound,
    NotOurs,
    Refused,
    Uncertain,
)
from moorline.hypervisors.vsphere import device_specs
from moorline.hypervisors.vsphere.client import tasks
from moorline.hypervisors.vsphere.client.properties import read
from moorline.hypervisors.vsphere.client.session import Session
from moorline.hypervisors.vsphere.client.tasks import Progress, no_progress
from moorline.hypervisors.vsphere.disk_checks import check, wanted
from moorline.hypervisors.vsphere.disk_names import Naming
from moorline.hypervisors.vsphere.giving import FreeDisk, Giving, disk_owners
from moorline.hypervisors.vsphere.inventory import Inventory, Whole
from moorline.hypervisors.vsphere.launch_options import CHOOSING
from moorline.hypervisors.vsphere.lifecycle import VSphereLifecycle, machine_request
from moorline.hypervisors.vsphere.provision.datastore_choice import Wanted, choose
from moorline.hypervisors.vsphere.provision.disk_sizes import size_on
from moorline.hypervisors.vsphere.provision.provisioner import Provisioner
from moorline.hypervisors.vsphere.virtual_machine import Device, Machine, disks_of, names, plain
from moorline.model import (
    DatastoreDisk,
    Disk,
    DiskOptions,
    DiskSource,
    Guest,
    GuestId,
    GuestName,
    ShadowDisk,
    Sizes,
    VolumeId,
)
from moorline.ports.datastores import Choice
from moorline.ports.guests import GuestOptions


class VSphere:
    """See :class:`moorline.ports.Hypervisor`. Guests are known by their instance UUID.

    A reconfiguration is live and persistent at once, so a disk is WHOLE or it
    is not there. *task_deadline*: seconds that a task may take; *move_deadline*: one
    that moves a disk, which takes as long as its bytes need.
    """

    kind: ClassVar[str] = "vsphere"
    accepts: ClassVar[frozenset[type]] = frozenset({DatastoreDisk, ShadowDisk})
    look_command: ClassVar[str] = "moorline list"
    stop_command: ClassVar[str] = "moorline list"
    choosing: ClassVar[GuestOptions] = CHOOSING

    def __init__(
        self, session: Session, *, task_deadline: float = 300.0, move_deadline: float = 86_400.0
    ) -> None:
        self._session = session
        self._inventory = Inventory(session)
        self._naming = Naming(session, deadline=task_deadline)
        self._giving = Giving(session, self._inventory, deadline=task_deadline)
        self._task_deadline = task_deadline
        self._move_deadline = move_deadline

    # --- questions -------------------------------------------------------------

    def find(self, guest: str) -> GuestName:
        return self._inventory.find(guest)

    def survey(self) -> Sequence[Guest]:
        machines, blind = self._inventory.machines()
        return [m.guest() for m in machines] + [b.guest() for b in blind]

    def disks(self, guest: GuestId) -> Mapping[VolumeId, Disk]:
        try:
            return self._inventory.machine(guest).disks()
        except NotFound:
            return {}

    def check(self, guest: GuestId, source: DiskSource, options: DiskOptions) -> None:
        check(source, options)
        machine, whole = self._inventory.among_all(guest)
        machine.free_place()
        self._new(machine, whole, source, self._path(source), options)

    def sizes(self, guest: GuestId, volume: VolumeId) -> Sizes:
        _, device = self._attached(guest, volume)
        return Sizes(guest=device.size, storage=None)

    def datastores(self, asked: Mapping[str, Any]) -> Choice:
        return Provisioner(self._session).choose(machine_request("none", asked))

    def lifecycle(self) -> VSphereLifecycle:
        return VSphereLifecycle(self._session)

    # --- commands --------------------------------------------------------------

    def attach(
        self, guest: GuestId, volume: VolumeId, source: DiskSource, options: DiskOptions
    ) -> None:
        check(source, options)
        machine, whole = self._inventory.among_all(guest)
        path = self._path(source)
        if _is_there(machine, volume, path):
            return
        disk = self._new(machine, whole, source, path, options)
        for owner in disk.owners:
            self._giving.announce(owner, machine, disk)
        spec, controller, unit = device_specs.plug(machine, volume, path, disk.uuid, options)
        try:
            self._reconfigure(f"plugging {path} into {machine.name}", machine, spec)
        except (Refused, Failed) as error:
            # A task can fail after its effect, or another caller can have been faster.
            now = self._look_again(guest, error)
            if _is_there(now, volume, path):
                return
            if (now.version, now.controllers) != (machine.version, machine.controllers):
                raise Conflict(
                    f"{error.message} ({machine.name} was changed meanwhile:"
                    f" place {controller.bus}:{unit} was free)"
                ) from error
            raise

    def detach(self, guest: GuestId, volume: VolumeId) -> None:
        try:
            machine = self._inventory.machine(guest)
        except NotFound:
            return
        if volume not in machine.marks:
            return
        device = machine.device_of(volume)
        _refuse_difference(machine, volume, device)
        what = f"unplugging it from {machine.name}"
        try:
            self._reconfigure(what, machine, device_specs.unplug(machine, volume, device))
        except (Refused, Failed) as error:
            if volume in self._look_again(guest, error).marks:
                raise error if isinstance(error, Failed) else Failed(error.message) from error

    def settled(self, guest: GuestId, seconds: float) -> None:
        """See :class:`moorline.ports.Settling`."""
        self._giving.settle(guest)

    def extend(
        self,
        guest: GuestId,
        volume: VolumeId,
        size: int,
        *,
        round_up: bool = False,
        progress: Progress = no_progress,
    ) -> int:
        """Make an attached volume *size* bytes large; return its size then, in bytes.

        It must be what the datastore's type allows, or is rounded up to it.
        A volume that is as large already is left alone. Raises NotFound (not
        attached), Refused, Failed, Uncertain.
        """
        machine, device = self._attached(guest, volume)
        _refuse_difference(machine, volume, device)
        disk, values = self._disk(machine, device)
        rounded = size_on(values["summary"].type, size, round_up=round_up, what=f"volume {volume}")
        if rounded < device.size:
            raise Refused(
                f"volume {volume} has {exact(device.size)}, and cannot shrink to {exact(rounded)}"
            )
        if rounded > device.size:
            what = f"volume {volume} is not extended"
            try:
                self._reconfigure(
                    what, machine, device_specs.resize(machine, disk, rounded), progress
                )
            except (Refused, Failed) as error:
                now = self._look_again(guest, error).device_of(volume)
                if now is None or now.size < rounded:
                    raise
        return rounded

    def limit(self, guest: GuestId, volume: VolumeId, limits: Mapping[str, int]) -> None:
        machine, device = self._attached(guest, volume)
        its = wanted(limits)
        if device.limits == its:
            return
        disk, _ = self._disk(machine, device)
        what = f"volume {volume} is not limited"
        try:
            self._reconfigure(what, machine, device_specs.limit(machine, disk, its))
        except (Refused, Failed) as error:
            now = self._look_again(guest, error).device_of(volume)
            if now is None or now.limits != its:
                raise

    def relocate(
        self,
        guest: GuestId,
        volume: VolumeId,
        datastore: str,
        *,
        round_up: bool = False,
        progress: Progress = no_progress,
        dry_run: bool = False,
    ) -> DatastoreDisk:
        """Move an attached volume to another datastore; return where it is then.

        The target must meet the same rules as for a new disk of that size. If its type does not
        allow the size and it may be rounded up, the disk is extended first, as VMware advises. A
        disk that another machine has, too, is refused: its path there would be wrong. Raises
        NotFound, Refused, Failed, Uncertain.
        """
        machine, device = self._attached(guest, volume)
        _refuse_difference(machine, volume, device)
        within = self._inventory.datacenter(machine.ref)
        target, facts = self._inventory.datastore(datastore, within)
        if split(device.path).datastore == datastore:
            return split(device.path)
        if users := self._inventory.users([device], besides=machine.ref):
            raise Refused(
                f"volume {volume} is a disk of {', '.join(users)}, too, who would not find it",
                hint="detach it there first",
            )
        what = f"volume {volume} is not moved to {datastore}"
        (verdict,) = choose([facts], Wanted(device.size, round_up=round_up)).verdicts
        if verdict.against:
            raise Refused(f"{what} ({facts.type}): {verdict.against}", hint=verdict.hint)
        if dry_run:
            return split(device.path)
        if verdict.size > device.size:
            self.extend(guest, volume, verdict.size)
        locator = vim.vm.RelocateSpec.DiskLocator(diskId=device.key, datastore=target)
        spec = vim.vm.RelocateSpec(disk=[locator])
        error: MoorlineError | None = None
        try:
            tasks.run(
                self._session,
                what,
                lambda: machine.ref.RelocateVM_Task(spec),
                deadline=self._move_deadline,
                progress=progress,
            )
        except (Refused, Failed) as turned_down:
            error = turned_down
        done = Uncertain(f"{what}: vCenter says that it is done")
        now = self._look_again(guest, error or done).device_of(volume)
        if now is not None and split(now.path).datastore == datastore:
            return split(now.path)
        if error is None and now is not None:
            error = Failed(f"{done.message}, and the disk is {now.path}")
        raise error or Uncertain(f"{done.message}, and the disk is gone")

    def close(self) -> None:
        self._session.close()

    # --- parts -----------------------------------------------------------------

    def _reconfigure(
        self, what: str, machine: Machine, spec: Any, progress: Progress = no_progress
    ) -> None:
        tasks.run(
            self._session,
            what,
            lambda: machine.ref.ReconfigVM_Task(spec),
            deadline=self._task_deadline,
            progress=progress,
        )

    def _look_again(self, guest: GuestId, error: MoorlineError) -> Machine:
        """Look at a machine after a change that ended in *error*."""
        try:
            return self._inventory.machine(guest)
        except MoorlineError as blind:
            raise Uncertain(f"{error.message}, and {blind.message}") from error

    def _path(self, source: DiskSource) -> str:
        """Where the disk is now. Raises Refused if its machine is not one that only holds it."""
        if isinstance(source, DatastoreDisk):
            return source.path
        assert isinstance(source, ShadowDisk), "_check lets nothing else through"
        what = f"the volume's machine {source.machine} cannot be looked at"
        path = "config.hardware.device"
        ref = self._session.reference(vim.VirtualMachine, source.machine)
        rows = read(self._session, what, [ref], vim.VirtualMachine, (path, "runtime.powerState"))
        disks = list(disks_of(rows[0][1].get(path, ())))
        if len(disks) != 1 or rows[0][1]["runtime.powerState"] != "poweredOff":
            raise Refused(f"{source.machine} is not a machine that only holds a volume")
        return disks[0].path

    def _new(
        self, machine: Machine, whole: Whole, source: DiskSource, path: str, options: DiskOptions
    ) -> FreeDisk:
        """A disk that *machine* does not have, once it is proved that it is there.

        Raises Refused, NotOurs if it or another machine has the disk, under whatever name, or if
        Moorline may destroy it.
        """
        machine.demand_that_it_stays(path)
        store = ""
        if isinstance(source, DatastoreDisk):
            within = self._inventory.datacenter(machine.ref)._moId
            store = self._naming.check(source, within, whole.stores).ref._moId
        uuid = self._uuid(machine, path)
        wanted = names(path, store, uuid=uuid)
        _refuse_twice(machine, path, wanted)
        disk = FreeDisk(path, uuid, wanted, options.shared, disk_owners(wanted, whole.machines))
        disk.refuse_others(machine, whole.machines)
        return disk

    def _uuid(self, machine: Machine, path: str) -> str:
        """The disk's UUID, which also proves that it is there. Raises Refused."""
        disks = self._session.content.virtualDiskManager
        within = self._inventory.datacenter(machine.ref)
        what = f"{path} cannot be looked at"
        return plain(self._session.ask(what, lambda: disks.QueryVirtualDiskUuid(path, within)))

    def _attached(self, guest: GuestId, volume: VolumeId) -> tuple[Machine, Device]:
        machine = self._inventory.machine(guest)
        device = machine.device_of(volume)
        if device is None:
            raise NotFound(f"volume {volume} is not attached to {machine.name}")
        return machine, device

    def _disk(self, machine: Machine, device: Device) -> tuple[Any, Mapping[str, Any]]:
        """The disk as vCenter has it, and its datastore."""
        what = f"the disk {device.path} cannot be looked at"
        path = "config.hardware.device"
        rows = read(self._session, what, [machine.ref], vim.VirtualMachine, (path,))
        disk = next(d for d in rows[0][1][path] if d.key == device.key)
        found = read(
            self._session, what, [disk.backing.datastore], vim.Datastore, ("name", "summary")
        )
        return disk, found[0][1]


def split(path: str) -> DatastoreDisk:
    """``[datastore] folder/disk.vmdk``, taken apart. Raises Refused."""
    datastore, found, file = path.removeprefix("[").partition("] ")
    if not path.startswith("[") or not found or not datastore or not file:
        raise Refused(f"{path[:80]!r} is not the path of a disk on a datastore")
    return DatastoreDisk(datastore, file)


def _is_there(machine: Machine, volume: VolumeId, path: str) -> bool:
    """Whether the volume is attached already. Raises NotOurs if its mark is on another disk."""
    disk = machine.disks().get(volume)
    if disk is not None and disk.source != path:
        raise NotOurs(f"{machine.name} has volume {volume} from {disk.source}, not from {path}")
    return disk is not None


def _refuse_twice(machine: Machine, path: str, wanted: set[str]) -> None:
    same = any(wanted & device.names for device in machine.devices)
    if same or path in machine.paths():
        raise NotOurs(f"{path} is a disk of {machine.name} that bears another mark, or none")


def _refuse_difference(machine: Machine, volume: VolumeId, device: Device | None) -> None:
    if device is not None and device.chain:
        # Its file alone would be what it was when the snapshot was taken.
        raise Failed(
            f"volume {volume} is part of a snapshot of {machine.name}: what was written since"
            f" is in {device.path}",
            hint=f"remove the snapshots of {machine.name} first",
        )
