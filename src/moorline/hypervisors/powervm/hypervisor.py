"""The hypervisor ``powervm``: FileIO disks on the management partition's vSCSI busses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from pypowervm import exceptions as pvm
from pypowervm.wrappers.logical_partition import LPAR
from pypowervm.wrappers.virtual_io_server import VIOS

from moorline.byte_sizes import exact
from moorline.disk_options import refuse_others
from moorline.errors import Failed, MoorlineError, NotFound, Refused, Uncertain
from moorline.hypervisors.powervm import mappings
from moorline.hypervisors.powervm.disk_holders import holders, is_of, runs, use
from moorline.hypervisors.powervm.jobs import rescan
from moorline.hypervisors.powervm.mappings import ScsiMapping
from moorline.hypervisors.powervm.plug import Plug, marked
from moorline.hypervisors.powervm.remembered_slots import Slot, Slots
from moorline.hypervisors.powervm.session import ManagementPartition, NovaLink
from moorline.model import (
    Disk,
    DiskOptions,
    DiskSource,
    DiskState,
    Guest,
    GuestId,
    GuestName,
    ImageFile,
    Sizes,
    VolumeId,
    is_uuid,
)

_NEVER_IN_NAMES = frozenset("()<>*$&?|[]'\"`")
"""Characters that PowerVM does not allow in a partition's name; they would change our search."""


class PowerVM:
    """Maps files of the NovaLink partition to LPARs. Runs on that partition.

    Only mappings of the management partition's own Virtual I/O Server are read
    and changed. They are persistent and live at once, so a disk is WHOLE, or
    PARTIAL while it has no target device or is there twice.
    """

    kind: ClassVar[str] = "powervm"
    accepts: ClassVar[frozenset[type]] = frozenset({ImageFile})
    look_command: ClassVar[str] = "moorline list"
    stop_command: ClassVar[str] = "moorline list"

    def __init__(
        self,
        novalink: NovaLink,
        slots: Slots,
        look: Callable[[Path], None],
        measure: Callable[[Path], int],
    ) -> None:
        """*look* checks a raw image file on this machine, *measure* tells its bytes.

        Both have a deadline. They raise Refused, Uncertain or OSError, as ``Host.image`` does.
        """
        self._novalink = novalink
        self._slots = slots
        self._look = look
        self._measure = measure

    # --- questions -------------------------------------------------------------

    def find(self, guest: str) -> GuestName:
        lpar = self._lpar(guest)
        return GuestName(GuestId(lpar.uuid.upper()), lpar.name)

    def survey(self) -> Sequence[Guest]:
        """Every LPAR of the system, and other holders of files, such as Virtual I/O Servers.

        A mapping whose client is gone still holds its file open.
        """
        host = self._novalink.host
        lpars = self._novalink.ask(f"the LPARs of {host} cannot be listed", LPAR.get)
        servers = self._novalink.ask(f"the servers of {host} cannot be listed", VIOS.get)
        found = self._mappings()
        guests = [self._guest(lpar, found) for lpar in lpars]
        rest = [m for m in found if not any(is_of(m, lpar) for lpar in lpars)]
        return guests + holders(rest, [*lpars, *servers])

    def disks(self, guest: GuestId) -> Mapping[VolumeId, Disk]:
        client = GuestId(guest.upper())
        ours = self._ours(client, self._mappings(client=client))
        # An owner that was killed after a change did not record the slot.
        self._note(client, {volume: found[0].place for volume, found in ours.items()})
        return {volume: _disk(found) for volume, found in ours.items()}

    def check(self, guest: GuestId, source: DiskSource, options: DiskOptions) -> None:
        plug = self._plug(guest, VolumeId(""), source, options, "this volume")
        plug.refuse(self._mappings(client=plug.client, path=plug.path))

    def sizes(self, guest: GuestId, volume: VolumeId) -> Sizes:
        return self._sizes(self._attached(guest, volume))

    # --- commands --------------------------------------------------------------

    def attach(
        self, guest: GuestId, volume: VolumeId, source: DiskSource, options: DiskOptions
    ) -> None:
        plug = self._plug(guest, volume, source, options, f"volume {volume}")
        server = self._novalink.management()
        vios = self._novalink.change(f"mapping {plug.path} to {plug.name}", server.uuid, plug)
        after = plug.made(vios)
        if len(after) != 1 or not after[0].visible:
            raise Uncertain(
                f"volume {volume} has {len(after)} mappings to {plug.name} where one with a"
                " target device was asked for",
                hint="detach it and attach it again",
            )
        self._note(GuestId(plug.client), {volume: after[0].place})

    def detach(self, guest: GuestId, volume: VolumeId) -> None:
        server = self._novalink.management()
        client = guest.upper()
        known = self._slots.of(GuestId(client)).get(volume)
        if not server.serves:
            return
        gone: list[ScsiMapping] = []

        def unplug(vios: Any) -> bool:
            found = mappings.read(vios, client=client)
            gone[:] = [m for m in found if marked(m, client, volume, known)]
            for m in gone:
                mappings.remove(m)
            return bool(gone)

        self._novalink.change(f"unmapping it from {client}", server.uuid, unplug)
        self._keep_place(GuestId(client), volume, gone[0].place if gone else known)

    def settled(self, guest: GuestId, seconds: float) -> None:
        """See :class:`moorline.ports.Settling`. NovaLink does not tell what it is at.

        So it is over when whoever asked for it would have waited no more.
        """
        if (left := self._novalink.deadline - seconds) > 0:
            raise Uncertain(
                f"NovaLink may still carry out a change of {guest} whose caller is gone",
                hint=f"try again in {left:.0f} s",
            )

    def extend(self, guest: GuestId, volume: VolumeId, size: int) -> int:
        """Let the guest see how large the volume's file is now, by a rescan.

        Raises NotFound if the volume is not attached, Failed, Uncertain (the
        job did not end within the deadline; it can simply be asked for again).
        """
        found = self._attached(guest, volume)
        sizes = self._sizes(found)
        what = f"volume {volume} is not extended"
        if size != sizes.storage:
            has = "no size" if sizes.storage is None else exact(sizes.storage)
            raise Failed(f"{what}: {found.path} has {has}, not {exact(size)}")
        if size != sizes.guest:
            server = self._novalink.management().uuid
            # The id is the server's: it is a UUID on some systems, never to be
            # taken for the path.
            self._novalink.ask(
                what, lambda a: rescan(a, server, found.udid, what, self._novalink.deadline)
            )
        return size

    def close(self) -> None:
        self._novalink.close()

    # --- parts -----------------------------------------------------------------

    def _plug(
        self,
        guest: GuestId,
        volume: VolumeId,
        source: DiskSource,
        options: DiskOptions,
        what: str,
    ) -> Plug:
        """Refuse what can be refused before the mappings are read."""
        path = _file(source, options)
        _refuse_traditional(self._novalink, what, path)
        lpar = self._lpar(guest)
        self._look_at(path)
        able, why = lpar.can_modify_io()
        client = GuestId(lpar.uuid.upper())
        return Plug(
            client=client,
            name=lpar.name,
            volume=volume,
            path=str(path),
            shared=options.shared,
            obstacle="" if able else str(why),
            recall=lambda: self._slots.of(client).get(volume, Slot("")),
            claim=lambda slot: self._slots.put(client, volume, slot),
        )

    def _keep_place(self, guest: GuestId, volume: VolumeId, slot: Slot | None) -> None:
        """Keep the slot of a detached volume as long as its guest exists."""
        if slot is None:
            return
        with suppress(MoorlineError):  # the volume is detached, whatever the record says
            try:
                self._lpar(guest)
            except NotFound:
                self._slots.drop(guest, volume)
            else:
                # Without the path: a name is a proof only while we ask for that file.
                self._slots.put(guest, volume, replace(slot, path=""))

    def _attached(self, guest: GuestId, volume: VolumeId) -> ScsiMapping:
        client = guest.upper()
        known = self._slots.of(GuestId(client)).get(volume)
        for found in self._mappings(client=client):
            if marked(found, client, volume, known):
                return found
        raise NotFound(f"volume {volume} is not attached to {client}")

    def _sizes(self, found: ScsiMapping) -> Sizes:
        path = Path(found.path)
        with _told(path):
            file = self._measure(path)
        told = float(found.gib or 0)
        # GiB with six decimals are exact to a KiB, which is less than a block of any file system.
        alike = f"{file / 2**30:.6f}" == f"{told:.6f}"
        return Sizes(guest=file if alike else round(told * 2**18) * 4096, storage=file)

    def _look_at(self, path: Path) -> None:
        with _told(path):
            self._look(path)

    def _lpar(self, guest: str) -> Any:
        what = f"LPAR {guest} cannot be looked at"
        lpar = None
        if is_uuid(guest.lower()):
            lpar = self._novalink.ask(what, lambda a: _get(a, guest.upper()))
        elif guest.isprintable() and guest and not _NEVER_IN_NAMES & set(guest):
            lpar = self._novalink.ask(what, lambda a: LPAR.search(a, name=guest, one_result=True))
        if lpar is None:
            raise NotFound(
                f"there is no LPAR {guest} on {self._novalink.host}",
                hint="name it, or give the UUID that PowerVM shows: its first bit is always clear",
            )
        return lpar

    def _mappings(self, *, client: str = "", path: str = "") -> list[ScsiMapping]:
        server = self._novalink.management()
        if not server.serves:
            return []  # so it has no files of ours in use
        return mappings.read(self._novalink.storage(server.uuid), client=client, path=path)

    def _guest(self, lpar: Any, found: Sequence[ScsiMapping]) -> Guest:
        id = GuestId(lpar.uuid.upper())
        its = [m for m in found if m.path and is_of(m, lpar)]
        ours = self._ours(id, found)
        disks = {volume: _disk(ms) for volume, ms in ours.items()}
        known = self._slots.of(id) if ours else {}
        marks = {m.path: volume for volume, ms in ours.items() for m in ms}
        shared = {slot.path for volume, slot in known.items() if volume in ours and slot.shared}
        return Guest(
            id,
            lpar.name or f"LPAR {lpar.id}",
            runs(lpar),
            disks,
            frozenset(m.path for m in its),
            uses=frozenset(use(m, marks.get(m.path, ""), m.path in shared) for m in its),
        )

    def _ours(
        self, client: GuestId, found: Sequence[ScsiMapping]
    ) -> dict[VolumeId, list[ScsiMapping]]:
        """Those of the client's mappings that bear our mark, by volume."""
        mine = [m for m in found if m.client in (client, "") and m.path]
        if not mine:
            return {}
        known = self._slots.of(client)
        ours: dict[VolumeId, list[ScsiMapping]] = {}
        for m in mine:
            volumes = [VolumeId(m.tag)] if m.tag else [*known]
            for volume in volumes:
                if marked(m, client, volume, known.get(volume)):
                    ours.setdefault(volume, []).append(m)
        return ours

    def _note(self, guest: GuestId, places: Mapping[VolumeId, Slot]) -> None:
        with suppress(MoorlineError):  # the next look records it
            known = self._slots.of(guest)
            for volume, slot in places.items():
                had = known.get(volume, slot)
                if slot.lua and (volume not in known or had != slot):
                    self._slots.put(guest, volume, replace(slot, shared=had.shared))


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Translate errors of looking at *path* into ours."""
    try:
        yield
    except FileNotFoundError as error:
        raise Refused(f"there is no {path} on the NovaLink partition") from error
    except OSError as error:
        raise Failed(f"{path} cannot be looked at: {error.strerror}") from error


def _get(adapter: Any, uuid: str) -> Any:
    try:
        return LPAR.get(adapter, uuid=uuid)
    except pvm.HttpNotFound:
        return None


def _disk(found: Sequence[ScsiMapping]) -> Disk:
    first = found[0]
    whole = len(found) == 1 and first.visible
    device = f"C{first.slot}-L{first.lua.removeprefix('0x')}"  # as in AIX's location codes
    return Disk(DiskState.WHOLE if whole else DiskState.PARTIAL, device, first.path)


def _file(source: DiskSource, options: DiskOptions) -> Path:
    """Return the file to map. Raises Refused for what PowerVM cannot do."""
    if not isinstance(source, ImageFile):
        raise Refused("PowerVM takes volumes that are files, not block devices")
    if source.format != "raw":
        raise Refused(
            f"{source.path} is {source.format}, and PowerVM would show it to the guest as raw",
            hint="convert it to raw",
        )
    if not source.path.is_absolute() or not str(source.path).isprintable():
        raise Refused(f"{str(source.path)!r} is not a path that PowerVM can be told")
    if options.bus not in ("", "vscsi"):
        raise Refused(f"PowerVM has no bus {options.bus}", hint="leave it out, or say vscsi")
    if options.target:
        raise Refused("PowerVM's slots and LUNs are not chosen by hand", hint="leave target out")
    if options.readonly:
        raise Refused("PowerVM cannot map a file read-only")
    refuse_others("PowerVM's disks", options, ("bus", "shared"))
    return source.path


def _refuse_traditional(novalink: NovaLink, what: str, path: Path) -> None:
    server: ManagementPartition = novalink.management()
    if not server.serves:
        raise Refused(
            f"{what} cannot be attached on {novalink.host}: management partition {server.name}"
            f" (id {server.id}) does not host virtual I/O (traditional VIOS)",
            hint="it takes a NovaLink partition of type Virtual I/O Server on which"
            f" {path} is mounted; else use vSCSI or NPIV",
        )
