"""Finds where a machine is made: a cluster, a folder in its datacenter, a resource pool."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyVmomi import vim

from moorline.errors import NotFound, Refused
from moorline.hypervisors.vsphere.client.properties import (
    Values,
    collector,
    everywhere,
    fetch,
    read,
)
from moorline.hypervisors.vsphere.client.session import Session
from moorline.hypervisors.vsphere.inventory import SUMMARY, seen
from moorline.ports.datastores import Datastore


class Places:
    """Looks places up by name, by path (``prod/web``), or by vCenter's reference."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._clusters: dict[str, Any] = {}

    def cluster(self, name: str) -> Any:
        """The cluster, or the host in no cluster, of that name; '': the only cluster.

        A host counts where there is no cluster. Raises NotFound, Refused (there are several).
        """
        found = self._all(vim.ComputeResource, "cluster", ("name",))
        clusters = {ref for ref in found if isinstance(ref, vim.ClusterComputeResource)}
        paths = {
            ref: values["name"]
            for ref, values in found.items()
            if name or not clusters or ref in clusters
        }
        return self._one("cluster", name, paths)

    def folder(self, datacenter: Any, name: str) -> Any:
        """The folder for machines of that name in *datacenter*; '': the one of all others.

        vCenter keeps hosts, datastores and networks in folders, too, whose names may be the same.
        Raises NotFound, Refused.
        """
        root = self._root(datacenter, vim.Datacenter, "vmFolder")
        if not name:
            return root
        return self._one("folder", name, _paths(self._all(vim.Folder, "folder", _ABOVE), root))

    def pool(self, cluster: Any, name: str) -> Any:
        """The resource pool of that name in *cluster*; '': the one of all others.

        Raises NotFound, Refused (it is a vApp, or it is several).
        """
        root = self._root(cluster, vim.ComputeResource, "resourcePool")
        if not name:
            return root
        found = _paths(self._all(vim.ResourcePool, "resource pool", _ABOVE), root)
        pools = {ref: path for ref, path in found.items() if not isinstance(ref, vim.VirtualApp)}
        apps = {path for ref, path in found.items() if ref not in pools}
        if name in apps and name not in pools.values():
            raise Refused(
                f"{name} is a vApp, and no resource pool",
                hint="machines are made outside of vApps; vCenter moves them there",
            )
        return self._one("resource pool", name, pools)

    def datastores(self, cluster: str) -> tuple[Any, list[Datastore]]:
        """The cluster of that name, and the datastores that its hosts reach, in one call.

        Raises NotFound, Refused (there are several clusters, and none is named).
        """
        known = self._clusters.get(cluster) if cluster else None
        if known is not None:
            try:
                name, found = self._beneath(known)
            except NotFound:
                name = ""
            if name == cluster:
                return known, found
        ref = self._clusters[cluster] = self.cluster(cluster)
        return ref, self._beneath(ref)[1]

    def _beneath(self, cluster: Any) -> tuple[str, list[Datastore]]:
        """A cluster's name now, and its datastores."""
        to_each = collector.TraversalSpec(type=vim.ComputeResource, path="datastore", skip=False)
        source = collector.ObjectSpec(obj=cluster, skip=False, selectSet=[to_each])
        kinds = {vim.ComputeResource: ("name",), vim.Datastore: SUMMARY}
        rows = fetch(self._session, "the datastores cannot be listed", [source], kinds)
        names = [values["name"] for ref, values in rows if ref == cluster]
        return names[0], [seen(ref, values) for ref, values in rows if ref != cluster]

    def _root(self, ref: Any, kind: type, name: str) -> Any:
        what = f"{ref._moId} cannot be looked at"
        return read(self._session, what, [ref], kind, (name,))[0][1][name]

    def _all(self, kind: type, word: str, paths: tuple[str, ...]) -> dict[Any, Values]:
        return dict(everywhere(self._session, f"the {word}s cannot be listed", kind, paths))

    def _one(self, word: str, name: str, paths: Mapping[Any, str]) -> Any:
        """The one whose path *name* is, else the one whose path ends with it."""
        exact = [ref for ref, path in paths.items() if name in ("", path, ref._moId)]
        some = exact or [ref for ref, path in paths.items() if path.rpartition("/")[2] == name]
        if not some:
            raise NotFound(
                f"there is no {word} {name} in {self._session.host}",
                hint="there is " + ", ".join(sorted({*paths.values()})[:9]) if paths else "",
            )
        if len(some) > 1:
            raise Refused(
                f"there are {len(some)} {word}s" + (f" called {name}" if name else ""),
                hint="name one: " + ", ".join(f"{paths[ref]} ({ref._moId})" for ref in some[:9]),
            )
        return some[0]


_ABOVE = ("name", "parent")


def _paths(found: Mapping[Any, Values], root: Any) -> dict[Any, str]:
    """The paths of those that are *root* or beneath it; its own is its name."""
    paths = {root: found[root]["name"]} if root in found else {}
    for ref in found:
        names, at = [], ref
        while at in found and at != root:
            names.append(found[at]["name"])
            at = found[at].get("parent")
        if at == root and names:
            paths[ref] = "/".join(reversed(names))
    return paths
