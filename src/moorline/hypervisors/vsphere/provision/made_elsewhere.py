"""Compares where a machine is with where a request wants it made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pyVmomi import vim

from moorline.errors import Refused
from moorline.hypervisors.vsphere.client.properties import read
from moorline.hypervisors.vsphere.client.session import Session
from moorline.hypervisors.vsphere.inventory import Inventory
from moorline.hypervisors.vsphere.provision.datastore_choice import expression
from moorline.hypervisors.vsphere.provision.machine_request import MachineRequest
from moorline.hypervisors.vsphere.provision.machine_state import MachineState
from moorline.hypervisors.vsphere.provision.placement import Places
from moorline.hypervisors.vsphere.provision.storage_policies import matching

_PLACE = ("parent", "parentVApp", "resourcePool", "runtime.host")


class MadeElsewhere:
    """Holds a machine that there is against a request. What is not asked for may be anything."""

    def __init__(self, session: Session, inventory: Inventory, places: Places) -> None:
        self._session = session
        self._inventory = inventory
        self._places = places

    def refuse(self, request: MachineRequest, seen: MachineState) -> None:
        """Raise Refused if the machine is elsewhere; NotFound: there is no such place at all."""
        wheres = [*self._at(request, seen), *self._on(request, seen)]
        if wheres:
            raise Refused(
                f"there is a machine {request.name}, which is elsewhere: {'; '.join(wheres)}",
                hint="leave out where it shall be, move it there in vCenter, or take another name",
            )

    def _at(self, request: MachineRequest, seen: MachineState) -> Iterator[str]:
        """Its cluster, folder and resource pool, if they are others."""
        if not (request.cluster or request.folder or request.resource_pool):
            return
        what = f"where machine {request.name} is cannot be seen"
        now = read(self._session, what, [seen.ref], vim.VirtualMachine, _PLACE)[0][1]
        pool, host = now.get("resourcePool"), now.get("runtime.host")  # a template has no pool
        if pool is not None:
            cluster = self._read(what, pool, vim.ResourcePool, "owner")
        elif host is not None:
            cluster = self._read(what, host, vim.HostSystem, "parent")
        else:
            raise Refused(what)
        if request.cluster and self._places.cluster(request.cluster) != cluster:
            yield f"its cluster is {self._name(what, cluster)}, and not {request.cluster}"
            return  # folders and pools are looked up within it
        if request.folder:
            # In a vApp it has no folder of its own.
            at = now.get("parent") or now.get("parentVApp")
            center = self._inventory.datacenter(cluster)
            if at is None or self._places.folder(center, request.folder) != at:
                yield f"its folder is {self._name(what, at)}, and not {request.folder}"
        if request.resource_pool and self._places.pool(cluster, request.resource_pool) != pool:
            yield f"its resource pool is {self._name(what, pool)}, and not {request.resource_pool}"

    def _on(self, request: MachineRequest, seen: MachineState) -> Iterator[str]:
        """Its datastore, if it is none that may be taken."""
        name = seen.home[1:].partition("] ")[0]
        if request.datastores and not expression(request.datastores).fullmatch(name):
            yield f"its datastore is {name}, which {request.datastores} does not match"
        if request.policy:
            center = self._inventory.datacenter(seen.ref)
            store, _ = self._inventory.datastore(name, center)
            if store._moId not in matching(self._session, request.policy)[1]:
                yield f"its datastore is {name}, which does not meet {request.policy}"

    def _name(self, what: str, ref: Any) -> str:
        return "none" if ref is None else str(self._read(what, ref, vim.ManagedEntity, "name"))

    def _read(self, what: str, ref: Any, kind: type, name: str) -> Any:
        return read(self._session, what, [ref], kind, (name,))[0][1][name]
