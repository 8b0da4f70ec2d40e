"""The hypervisor ``libvirt``: plugs disks into QEMU guests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, ClassVar

from moorline.deadline import Deadline
from moorline.errors import Failed, MoorlineError, NotFound
from moorline.hypervisors.libvirt import events, scsi_place
from moorline.hypervisors.libvirt.blocked_disks import demand_no_job, settle, why_kept
from moorline.hypervisors.libvirt.connection import Connection, NoGuest, Rejected
from moorline.hypervisors.libvirt.disk_address import (
    CONFIG,
    LIVE,
    address_for,
    check,
    error_after_plug,
    missing_from,
    otherwise_limited,
)
from moorline.hypervisors.libvirt.disk_options_xml import parameters
from moorline.hypervisors.libvirt.disk_xml import disk_xml, is_direct, path_of
from moorline.hypervisors.libvirt.domain_handles import Handles
from moorline.hypervisors.libvirt.domain_xml import Domain, alias_of
from moorline.hypervisors.libvirt.extending import measure_here, replaced
from moorline.hypervisors.libvirt.file_access import (
    demand_openable,
    demand_readable,
    only_read,
    openable_here,
    qemu_ids,
    readable_here,
)
from moorline.hypervisors.libvirt.file_owner_after_unplug import Unplug
from moorline.hypervisors.libvirt.inventory import LibvirtInventory
from moorline.hypervisors.libvirt.just_seen import JustSeen
from moorline.hypervisors.libvirt.lifecycle import LibvirtLifecycle
from moorline.hypervisors.libvirt.logins import KeepsLogins, KnownLogins, Logins, secret_of
from moorline.hypervisors.libvirt.luks_keys import LuksKeys
from moorline.hypervisors.libvirt.mount_propagation import hidden, hidden_from
from moorline.hypervisors.libvirt.open_errors import raise_if_known
from moorline.hypervisors.libvirt.opened_as_checked import Plug
from moorline.hypervisors.libvirt.qemu_open_files import AsChecked, OpenDisks, open_files
from moorline.hypervisors.libvirt.resizing import Resizes, Resizing
from moorline.hypervisors.libvirt.saved_files import SavedFiles
from moorline.hypervisors.libvirt.secrets import Secrets
from moorline.hypervisors.libvirt.survey import GuestSurvey, as_it_runs, as_named, located, look
from moorline.hypervisors.libvirt.unplug_wait import News, NewsOfGuest, Requests
from moorline.model import (
    NO_DISK,
    BlockDevice,
    Disk,
    DiskOptions,
    DiskSource,
    DiskState,
    Guest,
    GuestId,
    GuestName,
    ImageFile,
    NetworkDisk,
    VolumeId,
)
from moorline.ports import DiskRenewal, Measure, Openable, Places, Readable, Wake
from moorline.ports.inspection import OpenFile
from moorline.shared_look import SharedLook

DETACH_RETRY_SECONDS = 1.0
"""Seconds to wait for a guest to let a disk go before returning."""
_POLL_SECONDS = 0.02
_LIFECYCLE_DEADLINES = 2
"""How many deadlines a start has, which includes hooks and QEMU's own."""
_INVENTORY_DEADLINES = 1 / 3
"""The same for a closer look, which is skipped if libvirt is slow."""


class Libvirt(LuksKeys, KeepsLogins, Resizes):
    """See :class:`moorline.ports.Hypervisor`. Guests are known by their UUID.

    *uri*: ``qemu:///system``, ``qemu:///session``, ``qemu:///embed?root=DIR``.
    *deadline*: seconds that a libvirt call has. *measure* tells the bytes of a file or block
    device, *readable* whether a user can read a file, *openable* whether QEMU could open one:
    as ``Host.size``, ``Host.readable`` and ``Host.openable``.
    """

    kind: ClassVar[str] = "libvirt"
    accepts: ClassVar[frozenset[type]] = frozenset({ImageFile, BlockDevice, NetworkDisk})
    look_command: ClassVar[str] = "virsh list --all"
    stop_command: ClassVar[str] = "virsh shutdown {}"

    def __init__(
        self,
        uri: str = "qemu:///system",
        *,
        deadline: float = 30.0,
        measure: Measure = measure_here,
        readable: Readable = readable_here,
        places: Places = as_named,
        openable: Openable = openable_here,
    ) -> None:
        self._measure = measure
        self._readable = readable
        self._places = places
        self._openable = openable
        self._connection = Connection(uri, deadline)
        self._saved_files = SavedFiles(uri)
        self._survey = GuestSurvey(self._saved_files)
        self._all_guests: SharedLook[bool, Sequence[Guest]] = SharedLook(self._look_at_all)
        self._qemu = 0
        self._handles = Handles()
        self._resizing = Resizing(self._connection, self._handles, self._look, measure, places)
        self._logins = Logins(self._connection)
        self._secrets = Secrets(self._connection)
        self._seen = JustSeen()
        self._news = News()
        self._requests = Requests()

    def find(self, guest: str) -> GuestName:
        return self._connection.look(guest, lambda virt: self._handles.find(virt, guest))

    def survey(self) -> Sequence[Guest]:
        return self._all_guests.ask(True)

    def survey_changes(self) -> Sequence[Guest]:
        """See :class:`moorline.ports.SurveyingChanges`."""
        return self._all_guests.ask(False)

    def disks(self, guest: GuestId) -> Mapping[VolumeId, Disk]:
        return self.begin_disks(guest)()

    def begin_disks(self, guest: GuestId) -> Callable[[], Mapping[VolumeId, Disk]]:
        """See :class:`moorline.ports.Beginning`."""
        sure = self._seen.take(guest, AsChecked)
        self._seen.take(guest, Domain)
        seen = self._connection.begin_look(
            guest, lambda virt: self._survey.look(self._handles.of(virt, guest))
        )

        def disks() -> Mapping[VolumeId, Disk]:
            try:
                domain = seen()
            except NotFound:
                return {}
            self._seen.keep(guest, domain)
            found = self._with_logins(domain, domain.disks())
            live = domain.live is not None
            return OpenDisks(domain.name, found, self._places, sure) if live else found

        return disks

    def check(self, guest: GuestId, source: DiskSource, options: DiskOptions) -> None:
        domain = self._look(guest)
        check(domain, domain.halves(), source, options)
        self._demand_readable(source, options)
        self._demand_openable(domain, source, options)
        if domain.live is not None and hidden_from(domain.name, path_of(source)):
            raise hidden(domain.name, path_of(source))

    def attach(
        self, guest: GuestId, volume: VolumeId, source: DiskSource, options: DiskOptions
    ) -> None:
        # A pass asks for the disks and attaches then: a second look would see the same, or
        # what libvirt itself refuses (a target or an alias that is taken).
        domain = self._seen.take(guest, Domain)
        if domain is None or not missing_from(domain, volume):
            domain = self._look(guest)  # "there already" must be true of now
        with self._logins.kept(domain, volume, source):
            self._plug(domain, volume, source, options)

    def _plug(
        self, domain: Domain, volume: VolumeId, source: DiskSource, options: DiskOptions
    ) -> None:
        guest, flags = GuestId(domain.uuid), missing_from(domain, volume)
        if not flags:
            return
        address = address_for(domain, volume, source, options)
        self._demand_readable(source, options)
        self._demand_openable(domain, source, options, volume)
        at, qemu, secret = address, self._qemu_version(), secret_of(guest, volume, source)
        where: Any = {"target": at.target, "bus": at.bus, "place": at.place}
        xml = disk_xml(volume, source, options, **where, qemu=qemu, secret=secret)
        plug = Plug(domain.name, source if flags & LIVE else None)

        def plug_in(virt: Any) -> None:
            handle = self._handles.of(virt, guest)
            if address.controller is not None:
                handle.attachDeviceFlags(scsi_place.controller_xml(address.controller), flags)
            with self._saved_files.changing(virt, domain.name, flags):
                handle.attachDeviceFlags(xml, flags)

        try:
            self._connection.change(guest, plug_in)
        except (Failed, Rejected) as e:
            found = error_after_plug(self._look(guest), volume, source, address, flags, e)
            if found is e:
                written = "" if options.readonly else path_of(source)
                raise_if_known(self._connection, guest, self._handles.of, volume, e, written)
                raise
            if found is not None:
                raise found from e
        opened = plug.demand_checked(
            lambda: self.detach(guest, volume), lambda: volume in self.disks(guest)
        )
        self._seen.keep(guest, opened)

    def detach(self, guest: GuestId, volume: VolumeId) -> None:
        before = self._seen.take(guest, Domain)
        try:
            domain = self._look(guest)
        except NotFound:
            return
        error: MoorlineError | None = None
        live = domain.live.disks.get(volume) if domain.live is not None else None
        if live is not None:
            demand_no_job(self._connection, guest, live.target, self._handles.of)
            was = before.live.disks.get(volume, live) if before and before.live else live
            if live.mirrored or was.source != live.source:  # its job ended between two looks
                raise Failed(f"{live.target} of {domain.name} was copied to another file just now")
            self._news.listen(self.watch)
        unplug = Unplug(domain.name, live)
        # First of all: a guest may let go when nobody looks any more. What runs has it open anyway.
        self._logins.drop(domain, volume)
        with self._news.of(guest) as news:
            # The definition first: a crash in between leaves the live half, which
            # the next look finds. One call each, as a live request that is under
            # way already would make the common call fail.
            for flag, half in ((CONFIG, domain.defined), (LIVE, domain.live)):
                if half is not None and volume in half.disks:
                    error = self._ask_to_go(guest, volume, flag, unplug) or error
            deadline = Deadline(DETACH_RETRY_SECONDS)
            gone = live is None or self._wait_for_guest(guest, volume, news, deadline)
            self._survey.doubt(guest)  # libvirt tells that it has let go before it saves that
            if gone:
                self._requests.done(guest, volume)
            if gone and unplug.keeps:
                with suppress(MoorlineError):  # the disk is gone
                    # libvirt changes the owner after it lists the disk no more.
                    self.settled(guest, 0)
                    self._connection.look(guest, lambda _: unplug.give_back())
        kept = domain.saved is not None and volume in domain.saved.disks
        # Whoever asked looks at the guest next. Here it is looked at only to tell of an error.
        if not gone or error is not None or kept:
            self._demand_gone(domain, volume, error, deadline)

    def _demand_gone(
        self, domain: Domain, volume: VolumeId, error: MoorlineError | None, deadline: Deadline
    ) -> None:
        """Return once the disk is gone, or *deadline* is over; raise *error* if it stays."""
        guest = GuestId(domain.uuid)
        while volume in self.disks(guest):
            if deadline.over():
                error = error or why_kept(self._connection, domain, volume)
                if error is not None:
                    raise error
                return
            deadline.sleep(_POLL_SECONDS)

    def _wait_for_guest(
        self, guest: GuestId, volume: VolumeId, news: NewsOfGuest, deadline: Deadline
    ) -> bool:
        """Wait until the running guest seems to have let the disk go; False: *deadline* is over.

        Of its XML no more is read than whether the mark is in it: a look says what is so.
        """
        mark = f"'{alias_of(volume)}'"
        with suppress(NotFound):
            while not deadline.over():
                news.wait()
                if mark not in self._connection.look(
                    guest, lambda virt: self._handles.of(virt, guest).XMLDesc()
                ):
                    return True
            return False
        return True

    def limit(self, guest: GuestId, volume: VolumeId, limits: Mapping[str, int]) -> None:
        for target, flags in otherwise_limited(self._look(guest), volume, limits).items():
            self._limit(guest, target, parameters(limits), flags)

    def settled(self, guest: GuestId, seconds: float) -> None:
        """See :class:`moorline.ports.Settling`."""
        with suppress(NotFound, Rejected):  # it is no guest, or none of this hypervisor
            self._connection.look(guest, lambda virt: settle(self._handles.of(virt, guest)))

    def lifecycle(self) -> LibvirtLifecycle:
        return LibvirtLifecycle(self._connection.times(_LIFECYCLE_DEADLINES))

    def disk_renewal(self) -> DiskRenewal:
        from moorline.hypervisors.libvirt.renewing import LibvirtDiskRenewal

        return LibvirtDiskRenewal(self._connection, self._handles)

    def inventory(self) -> LibvirtInventory:
        return LibvirtInventory(self._connection.times(_INVENTORY_DEADLINES))

    def open_files(
        self, guest: Guest, numbers: Collection[int] | None = None
    ) -> Sequence[OpenFile]:
        """See :class:`moorline.ports.inspection.OpenImages`."""
        return open_files(guest.name, numbers) if guest.running else ()

    def replaced(self, guest: Guest, volume: VolumeId) -> str:
        """See :class:`moorline.ports.inspection.OpenImages`."""
        known = guest.disks.get(volume, NO_DISK)
        if known.state is not DiskState.WHOLE:  # which half has it was not told
            domain = self._look(guest.id)
            disk = domain.live.disks.get(volume) if domain.live is not None else None
            source = disk.source if disk is not None else ""
        else:
            source = known.source if guest.running else ""
        return replaced(guest.id, guest.name, source, self._measure, self._places)

    def watch(self, wake: Wake, stop: threading.Event) -> None:
        with self._news.told(wake) as tell:
            events.watch(self._connection.uri, tell, stop)

    def close(self) -> None:
        self._news.close()
        self._connection.close()

    def _ask_to_go(
        self, guest: GuestId, volume: VolumeId, flag: int, unplug: Unplug
    ) -> MoorlineError | None:
        alias = alias_of(volume)
        paced = self._requests.due(guest, volume) if flag == LIVE else nullcontext(True)
        try:
            with paced as due:
                self._connection.change(
                    guest, lambda virt: unplug.ask(self._handles.of(virt, guest), alias, flag, due)
                )
        except (Failed, NotFound, Rejected) as e:
            return e  # it may be gone, or about to go: a look decides, not the error
        return None

    def _look_at_all(self, afresh: Sequence[bool]) -> Sequence[Guest]:
        hang = self._connection.stuck_guests()
        guests = self._connection.look(
            NoGuest("all guests"), lambda v: self._survey.guests(v, hang, afresh=any(afresh))
        )
        return [as_it_runs(guest, self._places) for guest in located(guests, self._places)]

    def _limit(self, guest: GuestId, target: str, limits: dict[str, int], flags: int) -> None:
        self._connection.change(
            guest, lambda virt: self._handles.of(virt, guest).setBlockIoTune(target, limits, flags)
        )

    def _with_logins(
        self, domain: Domain, disks: Mapping[VolumeId, Disk]
    ) -> Mapping[VolumeId, Disk]:
        """*disks*, those locked whose password libvirtd has lost. Raises as the survey."""
        if not (secrets := domain.secrets()):
            return disks
        subject, id = NoGuest("secrets"), GuestId(domain.uuid)
        return self._connection.look(subject, lambda v: KnownLogins(v).marked(id, disks, secrets))

    def _look(self, guest: GuestId) -> Domain:
        return self._connection.look(guest, lambda virt: look(self._handles.of(virt, guest)))

    def _demand_readable(self, source: DiskSource, options: DiskOptions) -> None:
        """Check that QEMU can read files that keep their owner. Raises Refused, Failed."""
        if not (paths := list(only_read(source, options))):
            return
        look = self._connection.look
        ids = qemu_ids(look(NoGuest("capabilities"), lambda v: v.getCapabilities()))
        if ids is not None:
            for path in paths:
                demand_readable(path, ids, self._readable, image=Path(path_of(source)))

    def _demand_openable(
        self,
        domain: Domain,
        source: DiskSource,
        options: DiskOptions,
        volume: VolumeId | None = None,
    ) -> None:
        """Check that QEMU can open it, now or when the guest is started. Raises Refused, Failed."""
        direct = is_direct(source, options, self._qemu_version())
        mine = domain.live is not None and volume in domain.live.disks
        demand_openable(source, options, self._openable, mine=mine, direct=direct)

    def _qemu_version(self) -> int:
        if not self._qemu:
            self._qemu = self._connection.look(NoGuest("versions"), lambda v: int(v.getVersion()))
        return self._qemu
