"""How far the making of a requested machine came, read off the machine itself."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from moorline.hypervisors.vsphere.provision.machine_request import marked
from moorline.hypervisors.vsphere.virtual_machine import (
    HALF,
    LEAVING,
    READS,
    WHOLE,
    Device,
    Machine,
    parse,
)

MACHINE_STATE_READS = (*READS, "config.files.vmPathName")
"""The properties that make a :class:`MachineState`."""


class Stage(Enum):
    """How far a machine came."""

    ABSENT = "absent"
    HALF = "half"
    """Its disk was not brought in wholly, or its removal began."""
    OFF = "off"
    ON = "on"
    FOREIGN = "foreign"
    """Somebody else made it."""


@dataclass(frozen=True, slots=True)
class MachineState:
    """What a look at a requested machine found."""

    stage: Stage
    ref: Any = None
    id: str = ""
    """The machine's instance UUID."""
    digest: str = ""
    home: str = ""
    """Its folder, as ``[datastore] folder``."""
    devices: tuple[Device, ...] = ()
    running: bool = False
    machine: Machine | None = None
    """As it was seen; None unless we made it."""
    never_whole: bool = False
    """It is HALF because its disk was not brought in wholly."""

    @property
    def disks(self) -> list[str]:
        """The paths of all its disks, snapshots' among them."""
        return [path for device in self.devices for path in (device.path, *device.chain)]

    attached: tuple[str, ...] = ()
    """Volumes and files that are not its own: removing the machine would destroy them."""


def machine_state(ref: Any, values: Any) -> MachineState:
    """Read a machine's properties (:data:`MACHINE_STATE_READS`)."""
    state, digest = marked(values.get("config.extraConfig", ()))
    machine = parse(ref, values)
    if state not in (HALF, WHOLE, LEAVING):
        return MachineState(Stage.FOREIGN, ref, machine.id, running=machine.running)
    stage = Stage.HALF
    if state == WHOLE:
        stage = Stage.ON if machine.running else Stage.OFF
    home = values["config.files.vmPathName"].rpartition("/")[0]
    files = [device.path for device in machine.devices]
    # Any mark counts: a volume may have been moved into the machine's own folder.
    volumes = [f"volume {volume}" for volume in machine.marks]
    return MachineState(
        stage=stage,
        ref=ref,
        id=machine.id,
        digest=digest,
        home=home,
        devices=machine.devices,
        running=machine.running,
        machine=machine,
        never_whole=state == HALF,
        attached=(*volumes, *(f for f in files if f.rpartition("/")[0] != home)),
    )
