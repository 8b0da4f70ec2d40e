"""Finds what blocks a disk: lack of space, for which QEMU pauses the guest, or a block job."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from xml.etree import ElementTree as ET

from moorline.errors import Failed, MoorlineError
from moorline.hypervisors.libvirt.connection import Connection, module, names_of
from moorline.hypervisors.libvirt.domain_xml import Domain, source_of
from moorline.hypervisors.libvirt.mount_propagation import PROC, covering, mounts_of
from moorline.model import GuestId, VolumeId
from moorline.ports.inspection import Finding

LIST_PAUSED = 32
"""VIR_CONNECT_LIST_DOMAINS_PAUSED"""
PAUSED, IO_ERROR, NO_SPACE = 3, 5, 2
"""VIR_DOMAIN_PAUSED, VIR_DOMAIN_PAUSED_IOERROR, VIR_DOMAIN_DISK_ERROR_NO_SPACE"""


def findings(virt: Any, hang: frozenset[str]) -> list[Finding]:
    """Guests that QEMU paused itself, and why; those that *hang* are not asked."""
    found: list[Finding] = []
    for domain in virt.listAllDomains(LIST_PAUSED):
        if names_of(domain) & hang:
            continue
        with suppress(module().libvirtError):  # since it was listed it went, or was resumed
            if tuple(domain.state()) == (PAUSED, IO_ERROR):
                found += _of(domain)
    return found


def _of(domain: Any) -> Iterator[Finding]:
    disks = ET.fromstring(domain.XMLDesc()).findall("devices/disk")  # noqa: S314 - libvirt's own
    paths = {_get(disk, "target", "dev"): source_of(disk) for disk in disks}
    # libvirt may know that it was an error of a disk's, and not of which.
    errors = domain.diskErrors() or {"": 0}
    for device, error in sorted(errors.items()):
        full = error == NO_SPACE
        path = paths.get(device, "")
        why = "there is no space left for" if full else "there was an I/O error of"
        yield Finding(
            "paused-guest",
            domain.name(),
            f"{domain.name()} is paused: {why} its disk {device or '(which is not told)'}"
            + (f", {path}" if path else "")
            + (f", on {share}" if (share := _share(path)) else ""),
            ("make room on it first" if full else "see to its storage first")
            + ": then the guest goes on where it stands, and nothing is lost",
            shlex.join(["virsh", "resume", domain.name()]),
        )


def demand_no_job(
    connection: Connection, guest: GuestId, target: str, of: Callable[[Any, GuestId], Any]
) -> None:
    """Raise Failed while a block job works on a disk. *of*: as :meth:`Handles.of`.

    libvirt would refuse the running guest's half of a detach alone; and once the job is over, the
    disk may be another file.
    """
    name = ""
    with suppress(MoorlineError):  # what is asked next meets it, too
        name = connection.look(guest, lambda virt: _busy(of(virt, guest), target))
    if name:
        info = shlex.join(["virsh", "blockjob", name, target])
        raise Failed(
            f"a block job (a copy, a commit, a backup) works on {target} of {name}, which is left"
            " alone meanwhile",
            hint=f"`{info} --info` tells how far it is, `{info} --pivot` or `--abort` ends it",
        )


def _busy(domain: Any, target: str) -> str:
    """The guest's name if a block job works on the disk; ''."""
    return domain.name() if domain.blockJobInfo(target, 0) else ""


def _share(path: str) -> str:
    try:
        return covering(mounts_of(PROC / "self"), path).target if path.startswith("/") else ""
    except OSError:
        return ""


def _get(element: ET.Element, child: str, attribute: str) -> str:
    found = element.find(child)
    return "" if found is None else found.get(attribute, "")


def why_kept(connection: Connection, domain: Domain, volume: VolumeId) -> MoorlineError | None:
    """Why a guest keeps a disk that it was asked for; None: that is not known.

    A guest that is paused answers nothing: it lets the disk go when it goes on.
    """
    name = shlex.quote(domain.name)
    if domain.saved is not None:
        return Failed(
            f"the saved state of {domain.name} has the disk {volume}, which comes back when it is"
            " started",
            hint=f"start it, or drop that state: virsh managedsave-remove {name}",
        )
    try:
        state, reason = connection.look(
            GuestId(domain.uuid), lambda virt: virt.lookupByUUIDString(domain.uuid).state()
        )
    except MoorlineError:
        return None
    if state != PAUSED:
        return None
    on = f"virsh resume {name}"
    why, hint = "", f"{on}; or stop it: virsh destroy {name}"
    if reason == IO_ERROR:
        why = " by an I/O error"
        hint = (
            f"once its storage is back: {on}. Where its share is dead for good (moorline doctor):"
            f" virsh destroy {name}"
        )
    return Failed(f"{domain.name} is paused{why}, and lets no disk go until it goes on", hint=hint)


def settle(domain: Any) -> None:
    """Wait until nothing changes a guest any more. Raises libvirt's errors.

    What changes it has its job, or its lock while it is stopped, until it ends;
    virDomainMemoryStats waits for both, and libvirt gives up on the job after 30 s.
    """
    if domain.isActive():
        domain.memoryStats()
