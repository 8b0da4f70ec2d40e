"""How this host's guests go to another host's libvirtd, as its administrator set it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as ET

from moorline.errors import Failed, Refused
from moorline.hypervisors.libvirt import presence
from moorline.hypervisors.libvirt.connection import module
from moorline.hypervisors.libvirt.domain_xml import Half, parse
from moorline.hypervisors.libvirt.mount_propagation import type_at
from moorline.hypervisors.libvirt.secrets import has_value, named_by
from moorline.model import GuestId, VolumeId
from moorline.ports import Option

ACTIONS = ("abort", "force_complete")

MIGRATION_OPTIONS: Sequence[Option] = (
    Option(
        "live_migration_uri",
        "qemu+tls://%s/system",
        "How this host's libvirtd reaches another host's: %s stands for that one's name in the"
        " fleet.",
    ),
    Option(
        "live_migration_tunnelled",
        "true",
        "Send a guest's memory through the connection of the two libvirtds. false: QEMU sends it"
        " to QEMU, in the clear unless live_migration_with_native_tls is set.",
    ),
    Option(
        "live_migration_with_native_tls",
        "false",
        "QEMU sends to QEMU by TLS, with the certificates that libvirt's qemu.conf names.",
    ),
    Option(
        "live_migration_bandwidth",
        "0",
        "MiB a second that one guest's migration may use; 0: libvirt's own.",
    ),
    Option(
        "live_migration_permit_auto_converge",
        "false",
        "Slow a guest down that writes faster than it can be sent.",
    ),
    Option(
        "live_migration_completion_timeout",
        "0",
        "Seconds after which live_migration_timeout_action is done; 0: never.",
    ),
    Option(
        "live_migration_timeout_action",
        "abort",
        "abort: the guest stays. force_complete: it is paused, so that it can be sent to its end.",
    ),
)


@dataclass(frozen=True, slots=True)
class Migration:
    """The settings of :data:`MIGRATION_OPTIONS`."""

    uri: str = "qemu+tls://%s/system"
    tunnelled: bool = True
    native_tls: bool = False
    bandwidth: int = 0
    """MiB/s; 0: libvirt's own."""
    auto_converge: bool = False
    timeout: int = 0
    """Seconds; 0: none."""
    force_complete: bool = False
    """After the time-out, pause the guest; else it stays."""

    @classmethod
    def from_values(cls, values: Mapping[str, str]) -> Migration:
        """Read the options. Raises Refused."""
        told = {each.name: values.get(each.name, each.default) for each in MIGRATION_OPTIONS}
        uri, action = told["live_migration_uri"], told["live_migration_timeout_action"]
        if uri.count("%s") != 1 or "%" in uri.replace("%s", ""):
            raise Refused(f"live_migration_uri is {uri!r}: %s must stand in it for the host")
        if action not in ACTIONS:
            raise Refused(f"live_migration_timeout_action is {action!r}", hint=" or ".join(ACTIONS))
        native_tls = _flag(told, "live_migration_with_native_tls")
        return cls(
            uri,
            # Through a tunnel QEMU does not reach QEMU.
            _flag(told, "live_migration_tunnelled") and not native_tls,
            native_tls,
            _number(told, "live_migration_bandwidth"),
            _flag(told, "live_migration_permit_auto_converge"),
            _number(told, "live_migration_completion_timeout"),
            action == "force_complete",
        )

    def flags(self) -> int:
        """libvirt's, for what is sent live."""
        virt = module()
        flags: int = virt.VIR_MIGRATE_LIVE | virt.VIR_MIGRATE_PEER2PEER | virt.VIR_MIGRATE_PAUSED
        flags |= virt.VIR_MIGRATE_PERSIST_DEST | virt.VIR_MIGRATE_UNDEFINE_SOURCE
        flags |= virt.VIR_MIGRATE_ABORT_ON_ERROR
        for wanted, flag in (
            (self.tunnelled, virt.VIR_MIGRATE_TUNNELLED),
            (self.native_tls, virt.VIR_MIGRATE_TLS),
            (self.auto_converge, virt.VIR_MIGRATE_AUTO_CONVERGE),
        ):
            flags |= flag if wanted else 0
        return flags


def migrate(
    virt: Any, guest: GuestId, host: str, how: Migration, demand: Callable[[Any, Half], None]
) -> None:
    """Send *guest* to *host*, where it stays paused, and wait until it is there.

    *demand* looks at what runs in the last moment, and raises if it may not go. Raises libvirt's
    errors, Failed (*host* does not answer, or has a copy), Refused.
    """
    libvirt = module()
    uri = how.uri.replace("%s", host)
    domain = virt.lookupByUUIDString(guest)
    secure = libvirt.VIR_DOMAIN_XML_SECURE | libvirt.VIR_DOMAIN_XML_MIGRATABLE
    xml = domain.XMLDesc(secure)
    needs = named_by(guest, ET.fromstring(xml))  # noqa: S314 - libvirt's own output
    _demand_ready(libvirt, guest, host, uri, needs)
    paused = domain.state()[0] == presence.PAUSED
    parameters: dict[str, Any] = {
        libvirt.VIR_MIGRATE_PARAM_DEST_XML: presence.marked(xml, paused=paused)
    }
    if how.bandwidth:
        parameters[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] = how.bandwidth
    demand(virt, parse(domain.XMLDesc()))
    try:
        domain.migrateToURI3(uri, parameters, how.flags())
    except libvirt.libvirtError as e:
        if e.get_error_code() != libvirt.VIR_ERR_MIGRATE_UNSAFE:
            raise
        why = presence.unshared(ET.fromstring(xml), type_at)  # noqa: S314 - libvirt's own output
        if why:
            raise Refused(
                f"{why} (libvirt: {e})",
                hint="shared storage with cache 'none' can go along; a stopped guest can go with"
                " any cache",
            ) from e
        # All that libvirt is unsure of is on storage that a back end knows to be shared.
        demand(virt, parse(domain.XMLDesc()))
        domain.migrateToURI3(uri, parameters, how.flags() | libvirt.VIR_MIGRATE_UNSAFE)


def end_overdue(domain: Any, elapsed: float, how: Migration) -> None:
    """Do what is set for a migration that took longer than it may. *elapsed*: seconds.

    That it ended just now is as good. Raises no error of libvirt.
    """
    if not how.timeout or elapsed < how.timeout:
        return
    with suppress(module().libvirtError):
        if how.force_complete:
            if domain.state()[0] != presence.PAUSED:
                domain.suspend()
        else:
            domain.abortJob()


def _demand_ready(
    libvirt: Any, guest: GuestId, host: str, uri: str, needs: Mapping[str, VolumeId]
) -> None:
    """Raise Failed unless *host* has no copy of the guest, and the secrets that it *needs*.

    libvirt would let a guest come to where it is defined, and take the one for the other.
    """
    try:
        peer = libvirt.open(uri)
    except libvirt.libvirtError as e:
        raise Failed(f"{host} cannot be reached as {uri}: {e}") from e
    try:
        _demand_no_copy(libvirt, peer, guest, host)
        for secret, volume in needs.items():
            without = f"{host} does not have the key of volume {volume} yet"
            _demand_secret(libvirt, peer, secret, without)
    finally:
        with suppress(libvirt.libvirtError):
            peer.close()


def _demand_no_copy(libvirt: Any, peer: Any, guest: GuestId, host: str) -> None:
    try:
        peer.lookupByUUIDString(guest)
    except libvirt.libvirtError as e:
        if e.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return
        raise Failed(f"{host} does not tell whether it has a copy of {guest}: {e}") from e
    raise Failed(f"{host} has a copy of guest {guest} already")


def _demand_secret(libvirt: Any, peer: Any, secret: str, without: str) -> None:
    """Raise Failed, which says *without*, if *peer* has no such secret, or it has no value."""
    try:
        if has_value(peer.secretLookupByUUIDString(secret)):
            return
    except libvirt.libvirtError as e:
        if e.get_error_code() != libvirt.VIR_ERR_NO_SECRET:
            raise Failed(f"{without}, as far as it tells: {e}") from e
    raise Failed(without)


def _flag(told: Mapping[str, str], name: str) -> bool:
    value = told[name].strip().lower()
    if value not in ("true", "false"):
        raise Refused(f"{name} is {told[name]!r}: neither true nor false")
    return value == "true"


def _number(told: Mapping[str, str], name: str) -> int:
    if not told[name].strip().isdecimal():
        raise Refused(f"{name} is {told[name]!r}: no whole number")
    return int(told[name])
