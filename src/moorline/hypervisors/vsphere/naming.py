"""The one name of a disk: its datacenter, and its folder where that has two names."""

from __future__ import annotations

from typing import Any

from pyVmomi import vim

from moorline.errors import Refused
from moorline.hypervisors.vsphere.client import tasks
from moorline.hypervisors.vsphere.client.properties import read
from moorline.hypervisors.vsphere.client.session import Session
from moorline.hypervisors.vsphere.inventory import Inventory
from moorline.hypervisors.vsphere.machine import Machine
from moorline.model import DatastoreDisk

_OBJECTS = ("vvol", "vsan")
"""Types of datastores, in lower case, that keep objects. The first folder of a path is an
object's id there, and the folder's friendly name a second spelling of it
(``FileInfo.friendlyName`` and ``DatastoreNamespaceManager`` of the vSphere API)."""
_browser = vim.host.DatastoreBrowser


class Naming:
    """Refuses all spellings of a disk but one, or two wishes could be one disk."""

    def __init__(self, session: Session, inventory: Inventory, *, deadline: float) -> None:
        self._session = session
        self._inventory = inventory
        self._deadline = deadline

    def check(self, source: DatastoreDisk, machine: Machine) -> Any:
        """Return the datastore's reference. Raises Refused, NotFound, Unavailable, Uncertain."""
        within = self._inventory.datacenter(machine.ref)
        self._check_datacenter(source, machine, within)
        ref, facts = self._inventory.datastore(source.datastore, within)
        if facts.type.lower() in _OBJECTS:
            self._check_folder(source, ref)
        return ref

    def _check_datacenter(self, source: DatastoreDisk, machine: Machine, within: Any) -> None:
        known = self._inventory.datacenters_of(source.datastore)
        if not source.datacenter:
            if len(known) > 1:
                raise Refused(
                    f"{len(known)} datacenters have a datastore {source.datastore}",
                    hint="name the datacenter: ?datacenter=NAME, one of "
                    + ", ".join(sorted(known.values())),
                )
            return
        if source.datacenter not in known.values():
            raise Refused(
                f"datacenter {source.datacenter} has no datastore {source.datastore}",
                hint=f"{', '.join(sorted(known.values()))} has one" if known else "",
            )
        if list(known.values()).count(source.datacenter) > 1:
            raise Refused(f"there are several datacenters called {source.datacenter}")
        if known.get(within._moId) != source.datacenter:
            raise Refused(f"{machine.name} is in another datacenter than {source.datacenter}")

    def _check_folder(self, source: DatastoreDisk, ref: Any) -> None:
        what = f"the folders of datastore {source.datastore} cannot be listed"
        rows = read(self._session, what, [ref], vim.Datastore, ("browser",))
        # Without a query or the details, vCenter tells the names alone.
        wanted = _browser.SearchSpec(matchPattern=["*"])
        browser, top = rows[0][1]["browser"], f"[{source.datastore}]"
        found = tasks.run(
            self._session,
            what,
            lambda: browser.SearchDatastore_Task(top, wanted),
            deadline=self._deadline,
        ).file
        first, _, rest = source.file.partition("/")
        if any(each.path == first for each in found):
            return
        ids = [each.path for each in found if each.friendlyName == first]
        if len(ids) == 1 and rest:
            raise Refused(
                f"{first} is a second name of the folder {ids[0]} on {source.datastore}",
                hint=f"name the disk vmdk://{source.datastore}/{ids[0]}/{rest}",
            )
        raise Refused(f"there is no folder {first} on datastore {source.datastore}")
