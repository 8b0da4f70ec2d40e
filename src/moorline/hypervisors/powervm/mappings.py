"""The vSCSI mappings of a Virtual I/O Server: reads, chooses, adds and removes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pypowervm import const
from pypowervm.entities import Element
from pypowervm.wrappers.storage import BackStoreType, FileIO
from pypowervm.wrappers.virtual_io_server import VSCSIMapping

from moorline.hypervisors.powervm.remembered_slots import Slot
from moorline.model import VolumeId

ANYBODY = 65535
"""The client's id if a server's adapter takes any client."""
_BUS_LIMIT = 32
"""Disks on one bus before another is made (pypowervm's own limit)."""

_NS = {"u": const.UOM_NS}
_LPAR = f"{{{const.UOM_NS}}}AssociatedLogicalPartition"
_DISK_NAME = "{0}Storage/{0}VirtualDisk/{0}DiskName".format(f"{{{const.UOM_NS}}}")


@dataclass(frozen=True, slots=True)
class ScsiMapping:
    """An adapter pair of a client and the server, and mostly a disk on it."""

    client: str
    """UUID of the client LPAR; '' where it is not named.

    It is not for clients that are Virtual I/O Servers, nor once the LPAR was deleted.
    """
    client_id: int
    """The client partition's id; 0 or :data:`ANYBODY` if the server names none."""
    paired: bool
    """The client has its half of the pair. If not, it cannot see the disk, and may be gone."""
    slot: int
    """The client adapter's slot."""
    server_slot: int
    occupied: bool
    """There is a disk of any kind."""
    path: str
    """The file behind the disk; '' if it is no file."""
    tag: str
    udid: str
    lua: str
    """'' while there is no target device: the client cannot see the disk."""
    element: Any = field(compare=False, repr=False)
    gib: str = ""
    """The disk's size as the server tells it: a decimal of at most six places."""
    optical: bool = False
    """The client sees the file as a DVD. We make none."""

    @property
    def place(self) -> Slot:
        return Slot(self.path, self.slot, self.lua, self.client_id)

    @property
    def visible(self) -> bool:
        """Whether the client can see the disk."""
        return self.paired and self.lua != ""


def read(vios: Any, *, client: str = "", path: str = "") -> list[ScsiMapping]:
    """Return the mappings of *vios*, which was read with the group ViosSCSIMapping.

    With *client*: only those of that LPAR, those whose LPAR is not named, and those
    of the file *path*. It walks the XML tree: with hundreds of mappings, pypowervm's
    wrappers take four times as long.
    """
    tree = vios.element.element
    return [
        _mapping(e)
        for e in tree.iterfind("u:VirtualSCSIMappings/u:VirtualSCSIMapping", _NS)
        if not client or _client(e) in (client, "") or (path and e.findtext(_DISK_NAME) == path)
    ]


def _client(e: Any) -> str:
    lpar = e.find(_LPAR)
    href = "" if lpar is None else lpar.get("href", "")
    return str(href.partition("?")[0].rpartition("/")[2].upper())


def _mapping(e: Any) -> ScsiMapping:
    def text(path: str) -> str:
        return e.findtext(path, "", _NS) or ""

    storage = e.find("u:Storage", _NS)

    def number(*paths: str) -> int:
        return next((int(found) for path in paths if (found := text(path)).isdigit()), 0)

    name = text(_DISK_NAME)
    return ScsiMapping(
        client=_client(e),
        client_id=number(
            "u:ClientAdapter/u:LocalPartitionID", "u:ServerAdapter/u:RemoteLogicalPartitionID"
        ),
        paired=e.find("u:ClientAdapter", _NS) is not None,
        slot=number("u:ServerAdapter/u:RemoteSlotNumber"),
        server_slot=number("u:ServerAdapter/u:VirtualSlotNumber"),
        occupied=storage is not None and len(storage) > 0,
        path=name if name.startswith("/") else "",  # logical volumes bear plain names
        tag=text("u:Storage/*/u:Tag"),
        udid=text("u:Storage/*/u:UniqueDeviceID"),
        lua=text("u:TargetDevice/*/u:LogicalUnitAddress"),
        element=e,
        gib=text("u:Storage/*/u:DiskCapacity"),
        optical=e.find("u:TargetDevice/u:VirtualOpticalTargetDevice", _NS) is not None,
    )


@dataclass(frozen=True, slots=True)
class DiskAddress:
    """Where a new mapping goes. The server chooses what is None."""

    bus: ScsiMapping | None = None
    """A mapping whose adapters are shared."""
    slot: int | None = None
    lua: str | None = None


def choose(mappings: Sequence[ScsiMapping], client: str, wanted: Slot) -> DiskAddress:
    """Choose an address for one more disk of *client*, the *wanted* one if it is known and free.

    The bus is chosen by its client slot. pypowervm's own builder clones whichever
    bus it finds first and then overwrites the client slot alone, which leaves a pair
    of adapters that do not belong together.
    """
    busses = list(_busses(mappings, client))
    if wanted.slot:
        there = [bus for bus in busses if bus[0].slot == wanted.slot]
        if not there:
            return DiskAddress(slot=wanted.slot, lua=wanted.lua or None)
        if wanted.lua not in {m.lua for m in there[0]}:
            return DiskAddress(bus=there[0][0], lua=wanted.lua or None)
    for bus in busses:
        if sum(m.occupied for m in bus) < _BUS_LIMIT:
            return DiskAddress(bus=bus[0])
    return DiskAddress()


def _busses(mappings: Sequence[ScsiMapping], client: str) -> Iterator[list[ScsiMapping]]:
    by_server_slot: dict[int, list[ScsiMapping]] = {}
    for m in mappings:
        if m.client == client and m.paired and m.slot and m.server_slot:
            by_server_slot.setdefault(m.server_slot, []).append(m)
    yield from by_server_slot.values()


def add(vios: Any, client: str, path: str, volume: VolumeId, place: DiskAddress) -> None:
    """Put a mapping of the file *path* into *vios*, marked with *volume*."""
    # LOOP is IBM's choice for raw files over FILE_IO (pypowervm, BackStoreType).
    file = FileIO.bld(vios.adapter, path, backstore_type=BackStoreType.LOOP, tag=volume)
    if place.bus is None:
        new = VSCSIMapping.bld(
            vios.adapter, None, client, file, lpar_slot_num=place.slot, lua=place.lua
        )
    else:
        pair = VSCSIMapping.wrap(Element.wrapelement(place.bus.element, vios.adapter))
        new = VSCSIMapping.bld_from_existing(pair, file, lua=place.lua)
    vios.scsi_mappings.append(new)


def remove(mapping: ScsiMapping) -> None:
    """Take *mapping* out of the server that it was read from."""
    mapping.element.getparent().remove(mapping.element)
