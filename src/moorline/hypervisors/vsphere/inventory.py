"""Reads a vCenter's guests and datastores, and their datacenters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pyVmomi import vim

from moorline.errors import NotFound, Refused, Unavailable, Uncertain
from moorline.hypervisors.vsphere.client.properties import (
    Values,
    collector,
    everything,
    everywhere,
    fetch,
    read,
)
from moorline.hypervisors.vsphere.client.session import Session
from moorline.hypervisors.vsphere.virtual_machine import READS, Device, Machine, parse
from moorline.model import Guest, GuestId, GuestName, is_uuid
from moorline.ports.datastores import Datastore

_REMEDY = "in vCenter: make its datastore accessible, or remove it from the inventory"
_LOST = ("orphaned", "invalid")
"""Connection states of machines that no host has: they hold nothing."""
SUMMARY = ("name", "summary", "capability.perFileThinProvisioningSupported")
"""The properties of a datastore that :func:`seen` needs."""


class Unconfigured(Unavailable):
    """vCenter has no configuration of a machine: nobody can change it now."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A machine without a configuration: it is inaccessible, or is being made at this moment."""

    id: GuestId
    name: str
    running: bool
    why: str
    stores: frozenset[str]
    """The datastores that it has something on; empty if vCenter does not say."""

    def guest(self) -> Guest:
        """The same as a guest of a survey."""
        return Guest(self.id, self.name, self.running, {}, frozenset(), self.why, _REMEDY)


@dataclass(frozen=True, slots=True)
class Store:
    """A datastore, and the datacenter in which its name is its own."""

    ref: Any
    name: str
    type: str
    browser: Any
    center: str
    """vCenter's reference of the datacenter."""
    datacenter: str
    """The datacenter's name."""


@dataclass(frozen=True, slots=True)
class Whole:
    """Machines that can be read, datacenters and datastores, at one moment."""

    machines: Sequence[Machine]
    stores: Sequence[Store]


class Inventory:
    """Looks things up. References are kept, and looked up anew when they are gone."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._refs: dict[GuestId, Any] = {}
        self._datacenters: dict[str, Any] = {}

    # --- guests ----------------------------------------------------------------

    def find(self, guest: str) -> GuestName:
        """A machine by name or instance UUID. Raises NotFound, Refused (it is several)."""
        all = dict(self._all(("name", "config.instanceUuid", "summary.config.instanceUuid")))
        found = [
            GuestName(id, values["name"])
            for values in all.values()
            if (id := _uuid(values)) and (guest == values["name"] or _same(guest, id))
        ]
        if len(found) > 1:
            raise Refused(
                f"{len(found)} machines are called {guest}",
                hint="give the instance UUID: " + ", ".join(sorted(each.id for each in found)),
            )
        if not found:
            raise NotFound(f"there is no guest {guest} in {self._session.host}")
        return found[0]

    def machine(self, guest: GuestId) -> Machine:
        """Look at one machine. Raises NotFound, Unconfigured, Unavailable, Uncertain."""
        what = f"guest {guest} cannot be looked at"
        for ref in (self._refs.pop(guest, None), None):
            try:
                ref = ref or self._ref(what, guest)
                rows = read(self._session, what, [ref], vim.VirtualMachine, READS)
            except NotFound:
                continue  # it was registered anew, or is gone
            if (why := _unreadable(rows[0][1])) and _same(_uuid(rows[0][1]), guest):
                name = rows[0][1]["name"]
                raise Unconfigured(f"guest {name} cannot be read: {why}", hint=_REMEDY)
            found = None if why else parse(*rows[0])
            if found and _same(found.id, guest):
                self._refs[guest] = ref
                return found
        raise NotFound(f"there is no guest {guest} in {self._session.host}")

    def machines(self) -> tuple[list[Machine], list[Unreadable]]:
        """Look at all machines: those that can be read, and the others."""
        return _told_apart(self._all(READS, "the guests cannot be surveyed"))

    def among_all(self, guest: GuestId) -> tuple[Machine, Whole]:
        """Look at everything; return it with one machine. Raises as :meth:`machine` does."""
        whole = self.whole()
        found = next((each for each in whole.machines if _same(each.id, guest)), None)
        return found or self.machine(guest), whole

    def whole(self) -> Whole:
        """Look at all machines, datacenters and datastores in one call."""
        kinds = {
            vim.VirtualMachine: READS,
            vim.Datacenter: ("name", "datastore"),
            vim.Datastore: ("name", "summary.type", "browser"),
        }
        rows = everything(self._session, "the inventory cannot be looked at", kinds)
        machines, _ = _told_apart([row for row in rows if isinstance(row[0], vim.VirtualMachine)])
        found = {ref: values for ref, values in rows if isinstance(ref, vim.Datastore)}
        return Whole(
            machines,
            [
                Store(
                    ref,
                    found[ref]["name"],
                    found[ref]["summary.type"],
                    found[ref]["browser"],
                    center._moId,
                    values["name"],
                )
                for center, values in rows
                if isinstance(center, vim.Datacenter)
                for ref in values["datastore"]
                if ref in found
            ],
        )

    def users(self, disks: Sequence[Device], besides: Any) -> list[str]:
        """The names of the machines that have one of *disks*, but for the machine *besides*.

        Running or not; vCenter's own locks heed running ones only. Raises Uncertain if
        a machine that cannot be read may have one: it has something on that datastore,
        or vCenter does not say where.
        """
        machines, blind = self.machines()
        wanted, stores = set[str]().union(*(d.names for d in disks)), {d.store for d in disks}
        found = [
            machine.name
            for machine in machines
            if machine.ref != besides and any(d.names & wanted for d in machine.devices)
        ]
        maybe = next((b for b in blind if not b.stores or b.stores & stores), None)
        if maybe and not found:
            raise Uncertain(
                f"guest {maybe.name} cannot be read, and may have the disk: {maybe.why}",
                hint=_REMEDY,
            )
        return found

    def datacenter(self, ref: Any) -> Any:
        """The datacenter of *ref*: paths are read within it."""
        if ref._moId not in self._datacenters:
            self._datacenters[ref._moId] = self._above(ref, vim.Datacenter)
        return self._datacenters[ref._moId]

    def datastore(self, name: str, within: Any) -> tuple[Any, Datastore]:
        """The datastore *name* of the datacenter *within*. Raises NotFound."""
        to_each = collector.TraversalSpec(type=vim.Datacenter, path="datastore", skip=False)
        source = collector.ObjectSpec(obj=within, skip=True, selectSet=[to_each])
        what = f"datastore {name} cannot be looked up"
        for ref, values in fetch(self._session, what, [source], {vim.Datastore: SUMMARY}):
            if values["name"] == name:
                return ref, seen(ref, values)
        raise NotFound(f"there is no datastore {name} in the guest's datacenter")

    # --- parts -----------------------------------------------------------------

    def _all(self, paths: tuple[str, ...], what: str = "") -> list[tuple[Any, Values]]:
        what = what or "the guests cannot be listed"
        return everywhere(self._session, what, vim.VirtualMachine, paths)

    def _ref(self, what: str, guest: GuestId) -> Any:
        session = self._session
        ref = None
        if is_uuid(guest.lower()):
            ref = session.ask(
                what, lambda: session.content.searchIndex.FindByUuid(None, guest, True, True)
            )
        if ref is None:  # the index need not have those that cannot be read
            all = self._all(("summary.config.instanceUuid",), what)
            ref = next((each for each, values in all if _same(_uuid(values), guest)), None)
        if ref is None:
            raise NotFound(f"there is no guest {guest} in {session.host}")
        return ref

    def _above(self, ref: Any, kind: type) -> Any:
        up = collector.SelectionSpec(name="up")
        steps = collector.TraversalSpec(
            name="up", type=vim.ManagedEntity, path="parent", skip=False, selectSet=[up]
        )
        source = collector.ObjectSpec(obj=ref, skip=True, selectSet=[steps])
        what = f"the datacenter of {ref._moId} cannot be looked up"
        rows = fetch(self._session, what, [source], {kind: ("name",)})
        if not rows:
            raise NotFound(f"{ref._moId} is in no datacenter")
        return rows[0][0]


def _told_apart(
    found: Sequence[tuple[Any, Values]],
) -> tuple[list[Machine], list[Unreadable]]:
    rows = [row for row in found if row[1]["runtime.connectionState"] not in _LOST]
    blind = [
        Unreadable(
            GuestId(_uuid(values) or ref._moId),
            values["name"],
            values.get("runtime.powerState") != vim.VirtualMachine.PowerState.poweredOff,
            why,
            frozenset(store._moId for store in values.get("datastore", ())),
        )
        for ref, values in rows
        if (why := _unreadable(values))
    ]
    return [parse(ref, values) for ref, values in rows if not _unreadable(values)], blind


def _uuid(values: Values) -> GuestId:
    """A machine's instance UUID. vCenter remembers it of those whose ``config`` it cannot read."""
    found = values.get("config.instanceUuid") or values.get("summary.config.instanceUuid")
    return GuestId(found or "")


def _same(uuid: str, other: str) -> bool:
    """Whether both are one UUID: vCenter keeps the capitals that somebody gave it."""
    return uuid.lower() == other.lower()


def _unreadable(values: Values) -> str:
    """Why the machine's configuration cannot be read; '' if it can."""
    if "config.instanceUuid" in values:
        return ""
    return f"vCenter has no configuration of it (it is {values['runtime.connectionState']})"


def seen(ref: Any, values: Values) -> Datastore:
    """A datastore as a value, from what was read of it."""
    summary = values["summary"]
    return Datastore(
        id=ref._moId,
        name=values["name"],
        type=summary.type,
        capacity=summary.capacity,
        free=summary.freeSpace,
        accessible=summary.accessible,
        maintenance=summary.maintenanceMode or "normal",
        shared=bool(summary.multipleHostAccess),
        thin=values.get("capability.perFileThinProvisioningSupported", True),
    )
