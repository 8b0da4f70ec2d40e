"""Finds the datastores that meet a storage policy."""

from __future__ import annotations

import difflib

from pyVmomi import pbm

from moorline.errors import NotFound
from moorline.hypervisors.vsphere.client.session import Session

NO_REQUIREMENTS = "VVol No Requirements Policy"
"""vCenter's own policy that every VVOL datastore meets; disks on VVOL have it by default."""


def matching(session: Session, name: str) -> tuple[str, frozenset[str]]:
    """The policy's id, and the ids of the datastores that meet it.

    vCenter names those that are in maintenance or cannot be reached, too.
    Raises NotFound, Unavailable, Denied.
    """
    content = session.policies()
    what = f"the storage policy {name} cannot be looked up"
    storage = pbm.profile.ResourceType(resourceType="STORAGE")
    ids = session.ask(what, lambda: content.profileManager.PbmQueryProfile(storage, None))
    profiles = session.ask(what, lambda: content.profileManager.PbmRetrieveContent(ids))
    found = [each for each in profiles if each.name == name]
    if not found:
        close = ", ".join(difflib.get_close_matches(name, [each.name for each in profiles]))
        raise NotFound(
            f"there is no storage policy {name!r} in {session.host}",
            hint=f"did you mean {close}?" if close else "",
        )
    profile = found[0].profileId
    hubs = session.ask(what, lambda: content.placementSolver.PbmQueryMatchingHub(None, profile))
    ids = frozenset(hub.hubId for hub in hubs if hub.hubType == "Datastore")
    return str(profile.uniqueId), ids
