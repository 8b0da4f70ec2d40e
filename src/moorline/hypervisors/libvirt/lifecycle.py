"""Defines, starts, stops and undefines libvirt's guests."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, ClassVar
from xml.etree import ElementTree as ET

from moorline.errors import Failed, NotFound, NotOurs, Refused
from moorline.hypervisors.libvirt.connection import (
    Connection,
    Do,
    NoGuest,
    Rejected,
    T,
    module,
    names_of,
)
from moorline.hypervisors.libvirt.domain_xml import INACTIVE
from moorline.hypervisors.libvirt.launch_options import LAUNCHING, Hardware
from moorline.hypervisors.libvirt.new_domain_xml import (
    Platform,
    addresses,
    boot_place,
    difference,
    from_scratch,
    from_template,
    launched,
    platform,
)
from moorline.hypervisors.libvirt.open_errors import raise_if_known
from moorline.model import GuestId, GuestName, as_uuid
from moorline.ports.guests import GuestState, Launching
from moorline.ports.progress import Progress, no_progress

_NAME = re.compile(r"[^\s/\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]+")
"""The names that libvirt allows, without white space."""
_MAX_NAME_BYTES = 64
"""Bytes of a name. libvirt makes file names of it, some with a suffix."""


class LibvirtLifecycle:
    """See :class:`moorline.ports.guests.GuestLifecycle`. Guests are known by their UUID.

    The *connection* is the hypervisor's.
    """

    launching: ClassVar[Launching] = LAUNCHING

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._defining = threading.Lock()

    def look(self, guest: GuestId) -> GuestState:
        return self._connection.look(guest, lambda virt: _machine(virt.lookupByUUIDString(guest)))

    def parse(self, name: str, asked: Mapping[str, Any]) -> Hardware:
        return Hardware(**asked)

    def check(self, name: str, hardware: Hardware) -> None:
        self._refuse_other(name, hardware)
        self._definition(name, hardware)

    def define(self, name: str, hardware: Hardware, progress: Progress = no_progress) -> None:
        with self._defining:  # two guests of one template, made at once, must see each other
            self._define(name, hardware)

    def _define(self, name: str, hardware: Hardware) -> None:
        if self._refuse_other(name, hardware):
            return
        xml = self._definition(name, hardware)
        validate: int = module().VIR_DOMAIN_DEFINE_VALIDATE  # a mistake in a template is reported
        try:
            # Without a UUID, libvirt never redefines an existing guest with it.
            self._connection.change(name, lambda virt: virt.defineXMLFlags(xml, validate))
        except (Failed, Rejected) as e:
            if self._refuse_other(name, hardware):  # somebody was faster
                return
            if isinstance(e, Rejected):
                raise Refused(f"libvirt refuses the definition of {name}: {e.message}") from e
            raise

    def start(self, guest: GuestId) -> None:
        self._settled(guest, lambda virt: virt.lookupByUUIDString(guest).create(), running=True)

    def stop(self, guest: GuestId, *, force: bool) -> None:
        try:
            machine = self.look(guest)
        except NotFound:
            return
        if machine.running:
            self._settled(guest, lambda virt: _stop(virt, guest, force), running=False)
        elif machine.saved and not force:
            raise Refused(
                f"{machine.guest.name} was saved with its memory, which would be lost",
                hint="start it, or say --force",
            )
        elif machine.saved:
            self._on(guest, lambda domain: domain.managedSaveRemove())

    def check_removal(self, guest: GuestId) -> None:
        """Nothing to check: a guest has no data of its own, and volumes are detached before."""

    def remove(self, guest: GuestId) -> None:
        virt = module()
        # Metadata only: a snapshot inside of a volume's file is the volume's.
        flags = virt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
        flags |= virt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA | virt.VIR_DOMAIN_UNDEFINE_NVRAM
        with suppress(NotFound):
            if self.look(guest).running:
                raise Failed(f"guest {guest} runs again, and is not removed")
            self._on(guest, lambda domain: domain.undefineFlags(flags))

    def _on(self, guest: GuestId, do: Do[T]) -> T:
        return self._connection.change(guest, lambda virt: do(virt.lookupByUUIDString(guest)))

    def _settled(self, guest: GuestId, do: Do[Any], *, running: bool) -> None:
        """Change its state; that it has that state already is success."""
        try:
            self._connection.change(guest, do)
        except Failed as e:
            machine = self.look(guest)
            if machine.running is not running:
                whose = f"a volume of {machine.guest.name}"
                raise_if_known(self._connection, guest, _domain, whose, e)
                raise

    def _refuse_other(self, name: str, hardware: Hardware) -> bool:
        """Whether the guest is there already, and is what is asked for. Raises NotOurs, Refused."""
        _refuse_name(name)
        try:
            there = self._connection.look(name, lambda virt: _definition(virt.lookupByName(name)))
        except NotFound:
            return False
        if not launched(there):
            raise NotOurs(f"there is a guest {name} already, which was not launched by Moorline")
        if found := difference(there, hardware):
            raise Refused(f"{name} is there already, and {found}", hint=f"moorline remove {name}")
        return True

    def _definition(self, name: str, hardware: Hardware) -> str:
        if hardware.template:
            if hardware.network:
                raise Refused("a template says itself what networks the guest has")
            xml = from_template(name, hardware)
            self._refuse_twins(name, addresses(ET.fromstring(xml)))  # noqa: S314 - made above
            return xml
        network = self._connection.look(
            NoGuest("networks"), lambda v: _network(v, hardware.network)
        )
        asked = Hardware(hardware.memory, hardware.vcpus, network)
        return from_scratch(name, asked, self._connection.look(NoGuest("QEMU"), _platform))

    def _refuse_twins(self, name: str, macs: frozenset[str]) -> None:
        if not macs:
            return
        hang = self._connection.stuck_guests()
        for mac, other in self._connection.look(
            NoGuest("guests"), lambda v: twins(v, name, macs, hang)
        ):
            raise Refused(
                f"the template gives {name} the MAC address {mac}, which {other} has",
                hint="without <mac> in the template, libvirt makes one for each guest",
            )


def _refuse_name(name: str) -> None:
    if not _NAME.fullmatch(name) or len(name.encode()) > _MAX_NAME_BYTES or name in (".", ".."):
        raise Refused(
            f"{name!r} is no name for a guest",
            hint=f"1 to {_MAX_NAME_BYTES} bytes, without slashes and white space",
        )
    if as_uuid(name):
        raise Refused(f"{name} is no name for a guest: it could be taken for another one's UUID")


def _domain(virt: Any, guest: GuestId) -> Any:
    return virt.lookupByUUIDString(guest)


def _definition(domain: Any) -> ET.Element:
    return ET.fromstring(domain.XMLDesc(INACTIVE))  # noqa: S314 - libvirt's own output


def twins(
    virt: Any, name: str, macs: frozenset[str], hang: frozenset[str] = frozenset()
) -> list[tuple[str, str]]:
    """Which of *macs* other guests have, and who; those that *hang* are not asked."""
    others = [domain for domain in virt.listAllDomains() if not names_of(domain) & {name, *hang}]
    return [(mac, each.name()) for each in others for mac in _addresses(each) & macs]


def _addresses(domain: Any) -> frozenset[str]:
    libvirt = module()
    try:
        return addresses(ET.fromstring(domain.XMLDesc()))  # noqa: S314 - libvirt's own output
    except libvirt.libvirtError as e:
        if e.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN and not domain.connect().isAlive():
            raise
        return frozenset()  # it is gone since it was listed, or cannot be read
    except ET.ParseError:
        return frozenset()


def _machine(domain: Any) -> GuestState:
    xml = _definition(domain)
    running = bool(domain.isActive())
    return GuestState(
        GuestName(GuestId(domain.UUIDString()), xml.findtext("name", "")),
        running,
        launched(xml),
        not running and bool(domain.hasManagedSaveImage()),
        boot_place(xml),
    )


def _stop(virt: Any, guest: GuestId, force: bool) -> None:
    domain = virt.lookupByUUIDString(guest)
    if force:
        domain.destroy()
    else:
        domain.shutdown()


def _platform(virt: Any) -> Platform:
    """q35 if QEMU has it, else QEMU's default; KVM if libvirt can use it."""
    libvirt = module()
    try:
        return platform(virt.getDomainCapabilities(None, None, "q35", None))
    except libvirt.libvirtError as e:
        if e.get_error_code() != libvirt.VIR_ERR_INVALID_ARG:
            raise
    return platform(virt.getDomainCapabilities(None, None, None, None))


def _network(virt: Any, asked: str) -> str:
    """The network that is asked for, or libvirt's ``default`` if that is up. Raises Refused."""
    if asked == "none":
        return ""
    up = {network.name() for network in virt.listAllNetworks() if network.isActive()}
    if asked and asked not in up:
        raise Refused(
            f"there is no network {asked} that is up", hint=", ".join(sorted(up)) or "none is up"
        )
    return asked or ("default" if "default" in up else "")
