"""Libvirt's guests that go from host to host."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any
from xml.etree import ElementTree as ET

from moorline.deadline import Deadline
from moorline.errors import Failed, MoorlineError, NotFound, Refused, Unavailable, Uncertain
from moorline.hypervisors.libvirt import presence
from moorline.hypervisors.libvirt.connection import NoGuest, module, names_of
from moorline.hypervisors.libvirt.domain_xml import Half, marked_as
from moorline.hypervisors.libvirt.hypervisor import Libvirt
from moorline.hypervisors.libvirt.migration import Migration, end_overdue, migrate
from moorline.hypervisors.libvirt.open_as_named import demand_as_named
from moorline.hypervisors.libvirt.owners_kept import Run, given_back, owners_kept
from moorline.model import GuestId, VolumeId
from moorline.ports.moving import Presence, Present

SEND_SECONDS = 10.0
"""How long :meth:`MovingLibvirt.send` waits for a guest that is on its way: its caller has others
to care for, and a sign of life to give."""
_POLL_SECONDS = 0.1
_NO_DEADLINE = 1e6
"""As many deadlines as a migration may need: it is ended by its own time-out, or by a person."""
_KIB_PER_MIB = 1024
_NO_JOB = [0, 0, 0, 0, 0]
"""virDomainGetJobInfo: type, milliseconds so far, and left, bytes in all, and done."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """A guest that is here, as one look told."""

    name: str
    presence: Presence
    memory: int
    novas: bool
    job: bool
    elapsed: float
    """Seconds that the job has taken."""
    sent: float
    """The part of its memory that is sent, up to 1."""
    gone: bool = False
    """It went to another host just now, and its definition is about to."""


class _Sending:
    """A guest that is on its way, sent by this process."""

    def __init__(self, do: Callable[[], None]) -> None:
        self.ended = threading.Event()
        self.error: MoorlineError | None = None
        self._do = do
        threading.Thread(target=self._run, name="migration", daemon=True).start()

    def _run(self) -> None:
        try:
            self._do()
        except MoorlineError as e:
            self.error = e
        finally:
            self.ended.set()


_log = logging.getLogger(__name__)


class MovingLibvirt(Libvirt):
    """See :class:`moorline.ports.moving.MovingHypervisor`.

    A migration is libvirtd's: it goes on where this process dies, and the next one finds it by
    its job. *migration* tells how this host's guests are sent; it may raise Refused. *run* starts
    a process: by it the owners of disks' files are kept, where it is given.
    """

    def __init__(
        self,
        uri: str = "qemu:///system",
        *,
        migration: Callable[[], Migration] = Migration,
        run: Run | None = None,
        **more: Any,
    ) -> None:
        super().__init__(uri, **more)
        self._migration = migration
        self._run = run
        self._sendings: dict[tuple[GuestId, str], _Sending] = {}

    def present(self) -> Mapping[GuestId, Present]:
        """See the port. Refused: guests of Nova are here, which Nova alone moves and starts."""
        hang = self._connection.stuck_guests()
        seen = self._connection.look(NoGuest("all guests"), partial(_all_seen, hang))
        novas = next((each.name for each in seen.values() if each.novas), None)
        if novas is not None:
            raise Refused(
                f"{novas} is a guest of Nova: a host that Nova drives is no host of a fleet",
                hint="Nova moves and evacuates its guests itself",
            )
        return {
            guest: Present(each.name, each.presence, each.memory) for guest, each in seen.items()
        }

    def definition(self, guest: GuestId) -> bytes:
        virt = module()
        flags = virt.VIR_DOMAIN_XML_INACTIVE | virt.VIR_DOMAIN_XML_SECURE
        xml: str = self._connection.look(guest, lambda v: self._of(v, guest).XMLDesc(flags))
        return xml.encode()

    def define(self, guest: GuestId, definition: bytes, volumes: Container[VolumeId]) -> None:
        """See the port. Refused also: it is not of *guest*, or libvirt rejects it."""
        read = ET.fromstring(definition.decode())  # noqa: S314 - sealed by who had it
        if read.findtext("uuid") != guest:
            raise Refused(f"that is no definition of guest {guest}")
        taken = _without_others(read, volumes)
        with suppress(NotFound):
            self._connection.look(guest, lambda v: v.lookupByUUIDString(guest))
            return
        for volume in taken:
            _log.warning("guest %s is defined without volume %s: it has it no more", guest, volume)
        xml = ET.tostring(read, encoding="unicode") if taken else definition.decode()
        self._connection.change(guest, lambda v: v.defineXML(xml))

    def undefine(self, guest: GuestId) -> None:
        """See the port. Refused: its memory was saved, and would be lost."""
        virt = module()
        # Metadata only, and no file: what is in a volume is the volume's.
        flags = virt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA | virt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM
        flags |= virt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
        with suppress(NotFound):
            machine = self.lifecycle().look(guest)
            if machine.running:
                raise Failed(f"guest {guest} runs, and is not undefined")
            if machine.saved:
                name = machine.guest.name
                raise Refused(
                    f"{name} was saved with its memory, which would be lost",
                    hint=f"start it, or drop that state: virsh managedsave-remove {name}",
                )
            self._connection.change(guest, lambda v: self._of(v, guest).undefineFlags(flags))

    def start(self, guest: GuestId) -> None:
        self.lifecycle().start(guest)

    def stop(self, guest: GuestId) -> None:
        """See the port. Its disks' files keep their owner: on another host it may run with them."""
        try:
            with self._owners_kept(guest):
                self._connection.change(guest, lambda v: self._of(v, guest).destroy())
        except (Failed, NotFound):
            if self._presence(guest) not in (Presence.ABSENT, Presence.STOPPED):
                raise

    def _owners_kept(self, guest: GuestId) -> AbstractContextManager[None]:
        paths: list[str] = []
        with suppress(MoorlineError):  # then the change says what is wrong
            xml = self._connection.look(guest, lambda v: self._of(v, guest).XMLDesc(0))
            paths = given_back(xml)
        return owners_kept(self._run, paths) if self._run and paths else nullcontext()

    def resume(self, guest: GuestId) -> None:
        seen = self._connection.look(guest, partial(_seen, guest))
        if seen.presence in (Presence.SENT, Presence.ARRIVED):
            self._connection.change(guest, partial(_resume, guest))

    def send(self, guest: GuestId, host: str) -> None:
        """See the port. Uncertain: it is on its way still; ask again to wait for it."""
        how = self._migration()
        sending = self._sendings.get((guest, host))
        with self._as_seen(guest):
            if sending is None:
                seen = self._connection.look(guest, partial(_seen, guest))
                if not seen.job:
                    sending = self._begin(guest, seen, host, how)
            self._wait(guest, host, how, sending)

    @contextmanager
    def _as_seen(self, guest: GuestId) -> Iterator[None]:
        """That it is gone is success. While libvirtd does not answer, it may be on its way.

        Unavailable would say that it is not.
        """
        try:
            yield
        except Unavailable as e:
            raise Uncertain(f"it is not known how far guest {guest} went: {e}") from e
        except NotFound:
            for key in [key for key in self._sendings if key[0] == guest]:
                del self._sendings[key]

    def _begin(self, guest: GuestId, seen: _Seen, host: str, how: Migration) -> _Sending:
        _refuse(seen)
        demand = partial(self._demand_as_named, guest)
        do = partial(migrate, guest=guest, host=host, how=how, demand=demand)
        subject = NoGuest(f"the migration of {seen.name}")
        far = self._connection.times(_NO_DEADLINE)
        sending = self._sendings[guest, host] = _Sending(lambda: far.change(subject, do))
        return sending

    def _wait(self, guest: GuestId, host: str, how: Migration, sending: _Sending | None) -> None:
        """Raise NotFound once *guest* is gone, or why it stays, or that it is on its way still.

        *sending* None: another process sent it, of which only its job is left.
        """
        deadline = Deadline(SEND_SECONDS)
        while True:
            ended = sending is not None and sending.ended.is_set()
            seen = self._connection.look(guest, partial(_watched, guest, how))
            if ended and sending is not None:
                del self._sendings[guest, host]
                raise _outcome(seen, host, sending.error)
            if sending is None and not seen.job:
                raise Uncertain(f"{seen.name} did not go to {host}: it is sent again")
            if deadline.over():
                raise Uncertain(
                    f"{seen.name} is on its way to {host}: {seen.sent:.0%} of its memory is sent,"
                    f" for {seen.elapsed:.0f} s"
                )
            deadline.sleep(_POLL_SECONDS)

    def _demand_as_named(self, guest: GuestId, virt: Any, running: Half) -> None:
        demand_as_named(virt, guest, running, self._measure, self._places)

    def _presence(self, guest: GuestId) -> Presence:
        try:
            return self._connection.look(guest, partial(_seen, guest)).presence
        except NotFound:
            return Presence.ABSENT

    def _of(self, virt: Any, guest: GuestId) -> Any:
        return self._handles.of(virt, guest)


def _outcome(seen: _Seen, host: str, error: MoorlineError | None) -> MoorlineError:
    """What is to be raised after a migration that ended, and left the guest here."""
    if seen.presence is Presence.SENT or seen.job or error is None:
        return Uncertain(f"it is not known whether {seen.name} went to {host}")
    return error


def _refuse(seen: _Seen) -> None:
    if seen.novas:
        raise Refused(f"{seen.name} is a guest of Nova, which moves it", hint="nova live-migration")
    if seen.gone:
        raise Uncertain(f"{seen.name} is just going")
    if seen.presence is Presence.STOPPED:
        raise Refused(f"{seen.name} does not run")
    if seen.presence not in (Presence.RUNNING, Presence.ARRIVED):
        raise Uncertain(f"what is here of {seen.name} is no whole guest ({seen.presence})")


def _without_others(domain: ET.Element, volumes: Container[VolumeId]) -> list[VolumeId]:
    """Take our disks that are none of *volumes* out of a definition; which those are."""
    taken = []
    for devices in domain.iter("devices"):
        for device in list(devices):
            volume = marked_as(device)
            if volume is not None and volume not in volumes:
                devices.remove(device)
                taken.append(volume)
    return taken


def _all_seen(hang: frozenset[str], virt: Any) -> dict[GuestId, _Seen]:
    """Every guest. One about which a call hangs is not asked: it is told as running if it was."""
    libvirt = module()
    found = {}
    for domain in virt.listAllDomains():
        guest = GuestId(domain.UUIDString())
        if names_of(domain) & hang:
            running = Presence.STOPPED if domain.ID() == -1 else Presence.RUNNING
            found[guest] = _Seen(domain.name(), running, 0, False, True, 0.0, 0.0)
            continue
        try:
            found[guest] = _look(domain)
        except libvirt.libvirtError as e:
            if e.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
    return found


def _seen(guest: GuestId, virt: Any) -> _Seen:
    return _look(virt.lookupByUUIDString(guest))


def _watched(guest: GuestId, how: Migration, virt: Any) -> _Seen:
    """Look, and end what takes longer than it may."""
    domain = virt.lookupByUUIDString(guest)
    seen = _look(domain)
    if seen.job:
        end_overdue(domain, seen.elapsed, how)
    return seen


def _look(domain: Any) -> _Seen:
    libvirt = module()
    xml = ET.fromstring(domain.XMLDesc())  # noqa: S314 - libvirt's own output
    state, reason = domain.state()
    job, elapsed, _, total, sent = _job(domain) if xml.get("id") else _NO_JOB
    return _Seen(
        xml.findtext("name", ""),
        presence.presence(xml, state, reason, job=bool(job)),
        int(xml.findtext("memory", "0")) // _KIB_PER_MIB,
        presence.is_novas(xml),
        bool(job),
        elapsed / 1000,
        sent / total if total else 0.0,
        (state, reason) == (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED),
    )


def _job(domain: Any) -> list[int]:
    libvirt = module()
    try:
        job: list[int] = domain.jobInfo()[:5]
    except libvirt.libvirtError as e:
        code = e.get_error_code()
        if code == libvirt.VIR_ERR_OPERATION_UNSUPPORTED:  # a copy that comes; it has no figures
            return [libvirt.VIR_DOMAIN_JOB_UNBOUNDED, *_NO_JOB[1:]]
        if code != libvirt.VIR_ERR_OPERATION_INVALID:  # it has ended
            raise
        return _NO_JOB
    return job


def _resume(guest: GuestId, virt: Any) -> None:
    """Let it run, and then take the mark away: without both, the next look finds the mark."""
    libvirt = module()
    domain = virt.lookupByUUIDString(guest)
    xml = ET.fromstring(domain.XMLDesc())  # noqa: S314 - libvirt's own output
    if not presence.was_paused(xml):
        domain.resume()
    if presence.has_mark(xml):
        element = libvirt.VIR_DOMAIN_METADATA_ELEMENT
        live = libvirt.VIR_DOMAIN_AFFECT_LIVE
        domain.setMetadata(element, None, presence.PREFIX, presence.ARRIVED_NAMESPACE, live)
