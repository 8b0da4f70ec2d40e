"""A virtual machine as vCenter describes it: its disks, its controllers, our marks on it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyVmomi import vim

from moorline.disk_options import Limits
from moorline.errors import Refused
from moorline.hypervisors.vsphere.disk_checks import limits_of
from moorline.model import Disk, DiskState, Guest, GuestId, VolumeId

MARK = "moorline.volume."
"""Begins the keys, in a machine's extra configuration, that say which disk is which volume.

The value is the disk's UUID, which stays with it when it is moved, and its path.
The key is written in the call that adds the disk, and cleared in the call that
removes it. vCenter drops a key whose value becomes empty.
"""
LAUNCH_MARK = "moorline.launch"
"""The key, in a machine's extra configuration, that says that we made it, and how far we came."""
HALF, WHOLE, LEAVING = "half", "whole", "leaving"
"""Its values, with the request's digest behind. LEAVING: its removal began."""
TOUCHED = "moorline.settled"
"""The key, in a machine's extra configuration, of a value that no two changes have alike."""
GIVEN = "moorline.given"
"""The key, in a machine's extra configuration, that says to whom its disk is being given."""
NOBODY = "-"
"""In place of the UUID of a disk that has none."""
READS = (
    "name",
    "runtime.powerState",
    "runtime.connectionState",
    "config.instanceUuid",
    "config.changeVersion",
    "config.extraConfig",
    "config.hardware.device",
    "summary.config.instanceUuid",
    "datastore",
)
"""The properties that make a :class:`Machine`, or tell of one whose ``config`` cannot be read."""
MULTI_WRITER = "sharingMultiWriter"
"""A disk's sharing if several machines may write to it."""
CONTROLLERS = 4
UNITS = tuple(unit for unit in range(16) if unit != 7)
"""Units of a SCSI controller but 7, which is its own. Some have more, none has fewer."""

_device = vim.vm.device


@dataclass(frozen=True, slots=True)
class Device:
    """A virtual disk of a machine."""

    key: int
    place: str
    """``scsi0:1``"""
    path: str
    uuid: str
    size: int
    chain: tuple[str, ...]
    """The paths of the disks that it is a difference to: snapshots make such."""
    store: str = ""
    """vCenter's reference of its datastore."""
    names: frozenset[str] = frozenset()
    """What it and those beneath it go by, in every datacenter: see :func:`names`."""
    shared: bool = False
    """Others may write to it at the same time."""
    limits: Limits = ()


@dataclass(frozen=True, slots=True)
class Controller:
    """A SCSI controller."""

    key: int
    bus: int
    kind: type
    free: tuple[int, ...]
    """Units for our disks."""
    shared: bool = False
    """Other machines share its bus (the nodes of a cluster); our disks do not go there."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A look at a machine."""

    ref: Any
    id: GuestId
    name: str
    running: bool
    version: str
    """Changes with the configuration; '' where vCenter does not say."""
    devices: tuple[Device, ...]
    controllers: tuple[Controller, ...]
    marks: Mapping[VolumeId, tuple[str, str]]
    """UUID and path of each volume's disk, as they were when it was attached."""
    holds: bool = False
    """It is off and has one disk, as machines that only hold a volume."""
    other_paths: tuple[str, ...] = ()
    """Files of other devices, such as CD images."""
    launch: str = ""
    """How far we came with making it; '' if we did not make it, else its disk goes with it."""
    given: tuple[GuestId, str] = (GuestId(""), "")
    """The machine that its disk was last given to, and that one's version before; '' of nobody."""
    touched: str = ""
    """The value of :data:`TOUCHED`."""

    def device_of(self, volume: VolumeId) -> Device | None:
        """The disk that bears the volume's mark, if it is there."""
        if volume not in self.marks:
            return None
        uuid, path = self.marks[volume]
        by_uuid = [d for d in self.devices if d.uuid == uuid != NOBODY]
        by_path = [d for d in self.devices if path in (d.path, *d.chain)]
        return next(iter(by_uuid or by_path), None)

    def disks(self) -> dict[VolumeId, Disk]:
        """The disks that bear our mark. A mark whose disk somebody removed is none."""
        found = {volume: self.device_of(volume) for volume in self.marks}
        return {
            volume: Disk(
                DiskState.WHOLE,
                device.place,
                _origin(device, self.marks[volume][1]),
                limits=frozenset({device.limits}),
            )
            for volume, device in found.items()
            if device is not None
        }

    def paths(self) -> frozenset[str]:
        """The files of all its devices, snapshots' among them."""
        disks = {path for d in self.devices for path in (d.path, *d.chain)}
        return frozenset(disks | {*self.other_paths})

    def guest(self) -> Guest:
        """What a survey tells of it. One that holds a disk for others does not use it itself."""
        paths = frozenset(self.other_paths) if self.holds else self.paths()
        return Guest(self.id, self.name, self.running, self.disks(), paths)

    def demand_that_it_stays(self, path: str) -> None:
        """Refuse to give *path* to it, or from it, if Moorline may destroy it with its disks."""
        if self.launch not in ("", WHOLE):
            raise Refused(
                f"{path} would be lost with the machine {self.name}, which is half made or half"
                " removed",
                hint="launch it again, or remove it",
            )

    def free_place(self) -> tuple[Controller, int]:
        """A controller and a unit on it; the controller's key is negative if it must be made.

        Raises Refused if there is none left.
        """
        for controller in sorted(self.controllers, key=lambda c: c.bus):
            if controller.free:
                return controller, controller.free[0]
        buses = {controller.bus for controller in self.controllers}
        spare = [bus for bus in range(CONTROLLERS) if bus not in buses]
        if not spare:
            shared = ", ".join(sorted(f"scsi{c.bus}" for c in self.controllers if c.shared))
            raise Refused(
                f"{self.name} has no free place: {CONTROLLERS} SCSI controllers,"
                f" {len(UNITS)} devices on each"
                + (f", and none goes onto those whose bus machines share ({shared})" * bool(shared))
            )
        # The guest has a driver for a type of controller that it has already.
        kind = self.controllers[0].kind if self.controllers else _device.ParaVirtualSCSIController
        return Controller(-101, spare[0], kind, UNITS), UNITS[0]


def parse(ref: Any, values: Mapping[str, Any]) -> Machine:
    """A machine from its properties (:data:`READS`)."""
    devices: Sequence[Any] = values.get("config.hardware.device", ())
    options = {str(o.key): str(o.value or "") for o in values.get("config.extraConfig", ())}
    given, _, version = options.get(GIVEN, "").partition(" ")
    return Machine(
        ref=ref,
        id=GuestId(values["config.instanceUuid"]),
        name=values["name"],
        running=values["runtime.powerState"] != vim.VirtualMachine.PowerState.poweredOff,
        version=values.get("config.changeVersion", ""),
        devices=tuple(disks_of(devices)),
        controllers=tuple(_controllers(devices)),
        marks=dict(_marks(options)),
        holds=values["runtime.powerState"] == "poweredOff" and len([*disks_of(devices)]) == 1,
        other_paths=tuple(_other_paths(devices)),
        launch=options.get(LAUNCH_MARK, "").partition(" ")[0],
        given=(GuestId(given), version),
        touched=options.get(TOUCHED, ""),
    )


def mark(uuid: str, path: str) -> str:
    """The value of a mark."""
    return f"{uuid or NOBODY} {path}"


def _marks(options: Mapping[str, str]) -> Iterable[tuple[VolumeId, tuple[str, str]]]:
    for key, value in options.items():
        if key.startswith(MARK) and value:
            # The path begins at its bracket: older marks have blanks in the UUID.
            uuid, _, path = value.partition(" [")
            yield VolumeId(key.removeprefix(MARK)), (plain(uuid), f"[{path}")


def disks_of(devices: Sequence[Any]) -> Iterable[Device]:
    """The virtual disks among a machine's devices."""
    controllers = (d for d in devices if isinstance(d, _device.VirtualController))
    buses: dict[Any, str] = {c.key: _name(c) for c in controllers}
    for d in devices:
        if isinstance(d, _device.VirtualDisk):
            paths = tuple(_chain(d.backing))
            place = f"{buses.get(d.controllerKey, d.controllerKey)}:{d.unitNumber}"
            size = d.capacityInBytes or d.capacityInKB * 1024
            uuid = plain(getattr(d.backing, "uuid", None))
            yield Device(
                d.key,
                place,
                paths[0] if paths else "",
                uuid,
                size,
                paths[1:],
                _store(d.backing),
                frozenset(names(uuid=uuid)).union(
                    *(
                        names(b.fileName, _store(b), object=getattr(b, "backingObjectId", None))
                        for b in _backings(d.backing)
                    )
                ),
                getattr(d.backing, "sharing", None) == MULTI_WRITER,
                limits_of(d),
            )


def names(path: str = "", store: str = "", *, uuid: str = "", object: str | None = "") -> set[str]:
    """All names of a disk: two disks that share one of them are the same.

    A path is unique in one datastore only, and a disk can have two: on VVOL and vSAN an
    object's folder has a friendly name, too. So the UUID in the disk, and the id of the
    object on datastores that keep objects, count as names.
    """
    told = (("path", path and f"{store} {path}"), ("uuid", plain(uuid)), ("object", object))
    return {f"{kind} {name}" for kind, name in told if name}


def plain(uuid: str | None) -> str:
    """A disk's UUID in one spelling, :data:`NOBODY` and '' as they are.

    The disk manager tells it as ``60 00 C2 9a …-84 b2 …``, a machine's description as
    ``6000C29a-…``: Kubernetes compares them as here, too (``formatVirtualDiskUUID`` in
    ``vsphere/vclib`` of https://github.com/kubernetes/legacy-cloud-providers).
    """
    digits = (uuid or "").replace(" ", "").replace("-", "").lower()
    return digits or (uuid or "")


def _chain(backing: Any) -> Iterable[str]:
    return (each.fileName for each in _backings(backing))


def _backings(backing: Any) -> Iterable[Any]:
    while backing is not None and getattr(backing, "fileName", None):
        yield backing
        backing = getattr(backing, "parent", None)


def _store(backing: Any) -> str:
    return getattr(getattr(backing, "datastore", None), "_moId", "")


def _origin(device: Device, path: str) -> str:
    """The path to compare with the wanted one: for a snapshot, that of its base."""
    return path if path in device.chain else device.path


def _name(controller: Any) -> str:
    kinds = {
        _device.VirtualSCSIController: "scsi",
        _device.VirtualSATAController: "sata",
        _device.VirtualNVMEController: "nvme",
        _device.VirtualIDEController: "ide",
    }
    name = next((name for kind, name in kinds.items() if isinstance(controller, kind)), "bus")
    return f"{name}{controller.busNumber}"


def _controllers(devices: Sequence[Any]) -> Iterable[Controller]:
    for c in devices:
        if isinstance(c, _device.VirtualSCSIController):
            taken = {d.unitNumber for d in devices if d.controllerKey == c.key}
            shared = c.sharedBus != _device.VirtualSCSIController.Sharing.noSharing
            free = () if shared else tuple(unit for unit in UNITS if unit not in taken)
            yield Controller(c.key, c.busNumber, type(c), free, shared)


def _other_paths(devices: Sequence[Any]) -> Iterable[str]:
    for d in devices:
        if not isinstance(d, _device.VirtualDisk) and getattr(d.backing, "fileName", None):
            yield d.backing.fileName
