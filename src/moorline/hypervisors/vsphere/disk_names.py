"""Gives each disk one name: with its datacenter, and the id of a folder that has two names."""

from __future__ import annotations

from collections.abc import Sequence

from pyVmomi import vim

from moorline.errors import NotFound, Refused
from moorline.hypervisors.vsphere.client import tasks
from moorline.hypervisors.vsphere.client.session import Session
from moorline.hypervisors.vsphere.inventory import Store
from moorline.model import DatastoreDisk

_OBJECTS = ("vvol", "vsan")
"""Types of datastores, in lower case, that keep objects. The first folder of a path is an
object's id there, and the folder's friendly name a second spelling of it
(``FileInfo.friendlyName`` and ``DatastoreNamespaceManager`` of the vSphere API)."""
_browser = vim.host.DatastoreBrowser


class Naming:
    """Refuses all spellings of a disk but one, or two attachments could be one disk."""

    def __init__(self, session: Session, *, deadline: float) -> None:
        self._session = session
        self._deadline = deadline
        # Folders that are ids, by datastore: an id stays one, and is looked up once.
        self._ids: set[tuple[str, str]] = set()

    def check(self, source: DatastoreDisk, within: str, stores: Sequence[Store]) -> Store:
        """Return the disk's datastore, in the guest's datacenter *within*.

        Raises Refused, NotFound, Unavailable, Uncertain.
        """
        store = _in_datacenter(source, within, [s for s in stores if s.name == source.datastore])
        folder = (store.ref._moId, source.file.partition("/")[0])
        if store.type.lower() in _OBJECTS and folder not in self._ids:
            self._check_folder(source, store)
            self._ids.add(folder)
        return store

    def _check_folder(self, source: DatastoreDisk, store: Store) -> None:
        # Without a query and details, vCenter returns only the names.
        wanted = _browser.SearchSpec(matchPattern=["*"])
        found = tasks.run(
            self._session,
            f"the folders of datastore {store.name} cannot be listed",
            lambda: store.browser.SearchDatastore_Task(f"[{store.name}]", wanted),
            deadline=self._deadline,
        ).file
        first, _, rest = source.file.partition("/")
        if any(each.path == first for each in found):
            return
        ids = [each.path for each in found if each.friendlyName == first]
        if len(ids) == 1 and rest:
            raise Refused(
                f"{first} is a second name of the folder {ids[0]} on {store.name}",
                hint=f"name the disk vmdk://{store.name}/{ids[0]}/{rest}",
            )
        raise Refused(f"there is no folder {first} on datastore {store.name}")


def _in_datacenter(source: DatastoreDisk, within: str, known: Sequence[Store]) -> Store:
    names = sorted(store.datacenter for store in known)
    if not source.datacenter and len(known) > 1:
        raise Refused(
            f"{len(known)} datacenters have a datastore {source.datastore}",
            hint="name the datacenter: ?datacenter=NAME, one of " + ", ".join(names),
        )
    meant = [store for store in known if source.datacenter in ("", store.datacenter)]
    if not meant:
        where = f"datacenter {source.datacenter}" if source.datacenter else "any datacenter"
        raise NotFound(
            f"there is no datastore {source.datastore} in {where}",
            hint=f"{', '.join(names)} has one" if names else "",
        )
    if len(meant) > 1:
        raise Refused(f"there are several datacenters called {source.datacenter}")
    if meant[0].center != within:
        raise Refused(f"the guest is in another datacenter than {meant[0].datacenter}")
    return meant[0]
