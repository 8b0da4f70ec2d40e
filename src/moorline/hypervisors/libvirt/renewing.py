"""Gives a paused guest's disk its file anew, after the client of its share had died.

See :mod:`moorline.hypervisors.libvirt.block_graph` for how, and docs/survive.md for whom.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree as ET

from moorline.errors import Failed, NotFound, Refused
from moorline.hypervisors.libvirt.block_graph import (
    Chain,
    Graph,
    Opened,
    begins,
    call_away,
    chain_of,
    demand_expected,
    demand_stopped_by_errors,
    graph_of,
    may_open,
    next_call,
)
from moorline.hypervisors.libvirt.blocked_disks import IO_ERROR, PAUSED
from moorline.hypervisors.libvirt.connection import Connection, NoGuest
from moorline.hypervisors.libvirt.domain_handles import Handles
from moorline.hypervisors.libvirt.domain_xml import alias_of
from moorline.hypervisors.libvirt.monitor import Call, Monitor, Say, say
from moorline.hypervisors.libvirt.mount_propagation import (
    PID_FILES,
    PROC,
    covering,
    hidden,
    mounts_of,
)
from moorline.hypervisors.libvirt.qemu_open_files import descriptors, may_be_called, process_of
from moorline.model import GuestId, ImageFile, VolumeId


class Tried(NamedTuple):
    """A libvirt with which this was tried, and the nodes that it makes."""

    libvirt: tuple[int, int]
    raw_is_bare: bool
    """A raw disk has no node for its format."""


TRIED = {(7, 2): Tried((9, 0), raw_is_bare=False), (10, 0): Tried((11, 3), raw_is_bare=True)}
"""By the version of QEMU, which does not change under a guest, as libvirt's does."""
RUNS = 1
"""VIR_DOMAIN_RUNNING"""
_MOST_CALLS = 16
"""More than a disk's renewal has."""


class LibvirtDiskRenewal:
    """See :class:`moorline.ports.DiskRenewal`. *connection*, *handles*: the hypervisor's."""

    def __init__(
        self,
        connection: Connection,
        handles: Handles,
        proc: Path = PROC,
        pid_files: Path = PID_FILES,
        say: Say = say,
    ) -> None:
        self._connection = connection
        self._handles = handles
        self._proc = proc
        self._pid_files = pid_files
        self._say = say

    def foresee(self, guest: GuestId, volume: VolumeId) -> None:
        # No node is asked about: QEMU would look at its file for that, and hang with the share.
        disk = self._disk(guest, volume)
        if disk is None:
            return
        monitor = self._monitor(guest)
        chain = _chain(monitor, disk)
        demand_stopped_by_errors(disk.element, chain)
        domain = self._connection.look(guest, lambda virt: _seen(self._handles.of(virt, guest)))
        if domain.state[0] != RUNS and domain.state != (PAUSED, IO_ERROR):
            raise Refused(f"{disk.name} does not run, and was not paused by an I/O error")
        if domain.job:
            raise Refused(f"{disk.name} is being migrated, saved or dumped")
        self._opened(disk.name, chain.path)
        self._demand_tried(monitor)

    def lost_file(self, guest: GuestId, volume: VolumeId) -> int | None:
        disk = self._disk(guest, volume)
        if disk is None:
            return None
        path = _file(disk.element)
        opened = self._opened(disk.name, path)
        if opened.here:
            return None
        monitor = self._monitor(guest)
        chain = _chain(monitor, disk)
        self._demand_fit(guest, disk.name)
        self._demand_tried(monitor)
        demand_expected(chain, _look(monitor, chain))
        if len(opened.lost) != 1:  # of none, either: who has another name for it has lost it, too
            raise Refused(f"it cannot be told which file {disk.name} had open as {path}")
        return next(iter(opened.lost))

    def renew(
        self, guest: GuestId, volume: VolumeId, source: ImageFile, unchanged: Callable[[], None]
    ) -> None:
        disk = self._disk(guest, volume)
        if disk is None:
            return
        monitor = self._monitor(guest)
        chain = _chain(monitor, disk)
        if chain.path != str(source.path) or chain.format != source.format:
            raise Refused(f"{disk.name} has {chain.path} ({chain.format}) as {chain.target}")
        inode = source.checked[0].inode
        for _ in range(_MOST_CALLS):
            graph, opened = _look(monitor, chain), self._opened(disk.name, chain.path)
            if away := call_away(chain, graph, opened, inode):
                monitor.change(away)
                continue
            call = next_call(chain, graph, opened, inode)
            if call is None:
                return
            if begins(chain, graph, call):
                self._demand_fit(guest, disk.name)
                self._demand_tried(monitor)
                demand_expected(chain, graph)
            if may_open(call):
                unchanged()
            monitor.change(call)
        raise Failed(f"{disk.name} does not come to have {chain.path} open")

    def resume(self, guest: GuestId, about_to: Callable[[], None]) -> None:
        domain = self._connection.look(guest, lambda virt: _seen(self._handles.of(virt, guest)))
        if domain.state != (PAUSED, IO_ERROR):
            return  # it goes on already, or a person paused it
        for disk in domain.xml.iterfind("devices/disk"):
            path = _file(disk)
            if path and (found := self._opened(domain.name, path)).lost and not found.here:
                raise Refused(
                    f"{domain.name} is not let go on: it has {path} open on a mount that is no more"
                )
        about_to()
        self._connection.change(guest, lambda virt: self._handles.of(virt, guest).resume())

    def _demand_fit(self, guest: GuestId, name: str) -> None:
        """Refuse a guest that is not paused by an I/O error, or is being moved or saved."""
        domain = self._connection.look(guest, lambda virt: _seen(self._handles.of(virt, guest)))
        if domain.state != (PAUSED, IO_ERROR):
            raise Refused(
                f"{name} is not paused by an I/O error: its system has been told of errors, or will"
                " be",
                hint="a disk that is attached with --on-error stop pauses its guest instead",
            )
        if domain.job:
            raise Refused(f"{name} is being migrated, saved or dumped")

    def _demand_tried(self, monitor: Monitor) -> None:
        number = self._connection.look(NoGuest("versions"), lambda virt: int(virt.getLibVersion()))
        libvirt, qemu = (number // 1_000_000, number // 1000 % 1000), _version(monitor)
        if libvirt != TRIED[qemu].libvirt:
            raise _not_tried(f"libvirt {_said(libvirt)} and QEMU {_said(qemu)}")
        if monitor.ask(Call("query-block-jobs")):
            raise Refused("the guest has a block job, which would be cut off")

    def _disk(self, guest: GuestId, volume: VolumeId) -> _Disk | None:
        """The disk of a running guest that bears the mark; None: there is none."""
        try:
            domain = self._connection.look(guest, lambda virt: _seen(self._handles.of(virt, guest)))
        except NotFound:
            return None
        found = domain.xml.find(f"devices/disk/alias[@name='{alias_of(volume)}']/..")
        if not domain.runs or found is None:
            return None
        return _Disk(domain.name, found, has_thread=_has_thread(domain.xml, found))

    def _monitor(self, guest: GuestId) -> Monitor:
        return Monitor(
            self._connection, guest, lambda virt: self._handles.of(virt, guest), self._say
        )

    def _opened(self, name: str, path: str) -> Opened:
        """What a guest's process has open that may be *path*. No file system is asked.

        Raises Refused: the guest does not see the mount that is there now, or it cannot be told.
        """
        try:
            process = process_of(name, self._proc, self._pid_files)
            theirs, ours = mounts_of(process), mounts_of(self._proc / "self")
            files = list(descriptors(process))
        except (OSError, ValueError) as e:
            raise Refused(f"it cannot be told what {name} has open: {e}", hint="run as root") from e
        here = covering(theirs, path).device
        if here != covering(ours, path).device:
            raise hidden(name, path)
        devices = {mount.id: mount.device for mount in (*ours, *theirs)}
        known = [file for file in files if file.mount in devices]
        return Opened(
            frozenset(f.inode for f in known if f.path == path and devices[f.mount] == here),
            frozenset(
                f.inode for f in files if f.mount not in devices and may_be_called(f.path, path)
            ),
        )


class _Disk:
    def __init__(self, name: str, element: ET.Element, *, has_thread: bool) -> None:
        self.name = name
        """The guest's."""
        self.element = element
        self.has_thread = has_thread
        """An I/O thread serves its SCSI controller."""


class _Seen:
    """A domain, as one call sees it."""

    def __init__(self, domain: Any) -> None:
        self.state = tuple(domain.state())
        self.xml = ET.fromstring(domain.XMLDesc())  # noqa: S314 - libvirt's own output
        self.name = self.xml.findtext("name", "")
        self.runs = self.xml.get("id") is not None
        self.job = bool(self.runs and domain.jobInfo()[0])


def _seen(domain: Any) -> _Seen:
    return _Seen(domain)


def _chain(monitor: Monitor, disk: _Disk) -> Chain:
    """The nodes that *disk* has. Raises Refused: it may have others, and as :class:`Monitor`."""
    chain = chain_of(disk.element, raw_is_bare=TRIED[_version(monitor)].raw_is_bare)
    if disk.has_thread:  # of a virtio disk, the thread lets go of it while its guest is paused
        raise Refused(
            f"an I/O thread serves {chain.target}'s SCSI controller: QEMU gives it no other node"
        )
    return chain


def _has_thread(domain: ET.Element, disk: ET.Element) -> bool:
    address = disk.find("address")
    if address is None or address.get("type") != "drive":
        return False
    at = f"devices/controller[@type='scsi'][@index='{address.get('controller', '0')}']"
    return domain.find(f"{at}/driver[@iothread]") is not None


def _version(monitor: Monitor) -> tuple[int, int]:
    """Of a guest's QEMU. Raises Refused: it was not tried."""
    qemu = monitor.ask(Call("query-version"))["qemu"]
    version = (qemu["major"], qemu["minor"])
    if version not in TRIED:
        raise _not_tried(f"QEMU {_said(version)}")
    return version


def _not_tried(these: str) -> Refused:
    tried = (f"libvirt {_said(t.libvirt)} and QEMU {_said(qemu)}" for qemu, t in TRIED.items())
    return Refused(
        f"with {these} no disk is given its file anew: that was tried with {', '.join(tried)} alone"
    )


def _said(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


def _look(monitor: Monitor, chain: Chain) -> Graph:
    front = {"path": f"/machine/peripheral/{chain.alias}", "property": "drive"}
    return graph_of(
        monitor.ask(Call("qom-get", front)),
        monitor.ask(Call("query-named-block-nodes", {"flat": True})),
        monitor.ask(Call("x-debug-query-block-graph")),
    )


def _file(disk: ET.Element) -> str:
    source = disk.find("source")
    return "" if source is None else source.get("file", "")
