"""Makes vSphere's machines on a chosen datastore, starts and removes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from moorline.errors import NotFound
from moorline.hypervisors.vsphere.client.session import Session
from moorline.hypervisors.vsphere.inventory import Inventory
from moorline.hypervisors.vsphere.launch_options import LAUNCHING
from moorline.hypervisors.vsphere.provision import images
from moorline.hypervisors.vsphere.provision.machine_request import MachineRequest
from moorline.hypervisors.vsphere.provision.machine_state import Stage
from moorline.hypervisors.vsphere.provision.provisioner import Provisioner
from moorline.model import GuestId, GuestName
from moorline.ports.guests import GuestState, Launching

_FIELDS = {"for": "empty", "datastore_regex": "datastores", "storage_policy": "policy"}
"""Options whose field in a request has another name."""


class VSphereLifecycle:
    """See :class:`moorline.ports.guests.GuestLifecycle`. A guest's id is its instance UUID."""

    launching: ClassVar[Launching] = LAUNCHING

    def __init__(self, session: Session) -> None:
        self._inventory = Inventory(session)
        self._provisioner = Provisioner(session)

    def parse(self, name: str, asked: Mapping[str, Any]) -> MachineRequest:
        return machine_request(name, asked)

    def look(self, guest: GuestId) -> GuestState:
        found = self._inventory.machine(guest)
        seen = self._provisioner.look(found.name)
        if seen.id != found.id:
            raise NotFound(f"there is no guest {guest} any more")
        return GuestState(
            GuestName(guest, found.name),
            running=seen.running,
            launched=seen.stage is not Stage.FOREIGN,
            half=seen.stage is Stage.HALF,
            disks=seen.disks,
        )

    def check(self, name: str, hardware: MachineRequest) -> None:
        self._provisioner.check(hardware)

    def define(self, name: str, hardware: MachineRequest, progress: Callable[[str], None]) -> None:
        what = f"bringing in {hardware.image.path.name}" if hardware.image else f"making {name}"
        self._provisioner.make(hardware, lambda done: progress(f"{what}: {done} %"))

    def start(self, guest: GuestId) -> None:
        self._provisioner.start(self._inventory.machine(guest).name)

    def stop(self, guest: GuestId, *, force: bool) -> None:
        """Power it off, forced or not: nothing need run in it that hears a shutdown request."""
        if name := self._name(guest):
            self._provisioner.stop(name)

    def check_removal(self, guest: GuestId) -> None:
        if name := self._name(guest):
            self._provisioner.check_removal(name)

    def remove(self, guest: GuestId) -> None:
        if name := self._name(guest):
            self._provisioner.remove(name)

    def _name(self, guest: GuestId) -> str:
        """'' if it is gone."""
        with suppress(NotFound):
            return self._inventory.machine(guest).name
        return ""


def machine_request(name: str, asked: Mapping[str, Any]) -> MachineRequest:
    """The request for the options *asked*; looks at the image. Raises Refused, Failed."""
    fields = {_FIELDS.get(key, key): value for key, value in asked.items()}
    if fields.pop("eager", False):
        fields["thin"] = False
    if image := fields.pop("image", None):
        fields["image"] = images.inspect(Path(image))
    return MachineRequest(name, **fields)
