"""iSCSI by QEMU's own initiator: the guest's QEMU logs in, and this host has no device of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from moorline.backends.connection_info import ConnectionInfo
from moorline.backends.osbrick.properties import block_facts
from moorline.backends.share_spelling import server as spelled
from moorline.errors import Refused
from moorline.model import Format, Link, Linked, LinkName, NetworkDisk, VolumeId
from moorline.network_disk import PORTS, NetworkLogin, server
from moorline.ports import Call, Host, Option, Values
from moorline.secret import Secret

INITIATOR = Option(
    "iscsi_qemu_initiator",
    "",
    "As which initiator (an IQN) targets see this host. Default: QEMU's own, by the guest's name.",
)
LOOK_DEADLINE_SECONDS = 5.0
"""Seconds that a target has to let us in and to tell what a LUN is."""
_RESERVED = {
    True: "is reserved: another machine keeps it for itself",
    False: "does not tell whether another machine keeps it for itself",
}
"""Why it is nobody's to have; False: it does not tell, though it may."""
_CHILD = "moorline.backends.libiscsi"
_TRYING = "iqn.2008-11.org.linux-kvm:moorline"
"""As whom a target is asked where no initiator is configured."""
_NAME = re.compile(r"(?:iqn|eui|naa)\.[A-Za-z0-9.:_-]{1,219}")
_MAX_LUN = (1 << 14) - 1
_MAX_SECRET_BYTES = 255
_MAX_KNOWN = 4096
_URL = re.compile(r"iscsi_qemu://(?P<portal>[^/@]+)/(?P<target>[^/]+)/(?P<lun>[0-9]{1,5})")
_EXAMPLE = "iscsi_qemu://HOST[:PORT]/IQN/LUN"


@dataclass(frozen=True, slots=True)
class Lun:
    """A logical unit of a target."""

    portal: str
    """As :func:`moorline.network_disk.server` has it."""
    target: str
    lun: int
    login: NetworkLogin | None = field(default=None, compare=False)
    volume: VolumeId | None = None
    size: int = 0
    """Bytes that it has at least; 0: it was not told."""
    name: str = ""
    """The link is the volume."""


class IscsiQemu:
    """LUNs, by Cinder's connection or as an operator names them.

    A target is asked before a guest is given its LUN, by a child that can be killed (libiscsi):
    QEMU logs in while its guest stands still, and cannot be called off.
    """

    kind: ClassVar[str] = "iscsi_qemu"
    yields: ClassVar[frozenset[type]] = frozenset({NetworkDisk})
    options: ClassVar[Sequence[Option]] = (INITIATOR,)

    def __init__(
        self, host: Host, *, initiator: str = "", deadline: float = LOOK_DEADLINE_SECONDS
    ) -> None:
        self._host = host
        self._initiator = initiator
        self._deadline = deadline
        self._ids: dict[tuple[str, str, int], frozenset[str]] = {}
        """The names of LUNs, as they were when each was last asked."""

    @classmethod
    def from_options(cls, host: Host, values: Values) -> IscsiQemu:
        """Make one. Raises Refused."""
        initiator = values[INITIATOR.name]
        if initiator and not _NAME.fullmatch(initiator):
            raise Refused(f"{INITIATOR.name} is no name of an initiator: iqn.2026-01.org.example:a")
        return cls(host, initiator=initiator)

    def from_url(self, url: str, format: Format | None) -> Mapping[str, Any]:
        """``iscsi_qemu://HOST[:PORT]/IQN/LUN`` to a connection. Raises Refused.

        *format*: raw, if it is given.
        """
        if format not in (None, "raw"):
            raise Refused(f"a LUN is not {format}", hint="leave the format out")
        match = _URL.fullmatch(url)
        if match is None:  # it may hold a password
            raise Refused(
                f"an iSCSI volume is typed as {_EXAMPLE}",
                hint="with a user and password: --connection FILE",
            )
        data = {
            "target_portal": match["portal"],
            "target_iqn": match["target"],
            "target_lun": int(match["lun"]),
        }
        return {"driver_volume_type": self.kind, "data": data}

    def url(self, c: Lun) -> str:
        """See :class:`moorline.ports.Naming`."""
        return f"{self.kind}://{c.portal}/{c.target}/{c.lun}"

    def parse(self, connection: Mapping[str, Any]) -> Lun:
        """Validate a connection. Raises Refused.

        Of several portals QEMU is told the first: it takes no other.
        """
        info = ConnectionInfo(self.kind, connection)
        return Lun(
            portal=_portal(_first(info, "target_portal")),
            target=_target(_first(info, "target_iqn")),
            lun=_lun(_first(info, "target_lun")),
            login=_login(info),
            volume=info.volume_id(),
            size=block_facts(info)["size"],
        )

    def link_name(self, c: Lun) -> LinkName:
        """A name only: nothing appears on this host. It is one LUN by whichever portal."""
        return LinkName(f"/{self.kind}/{c.target.lower()}/{c.lun}")

    def inspect(self, c: Lun) -> Link:
        """Always there, as far as we are concerned: :meth:`verify` asks the target."""
        return Linked(self._source(c), given=True)

    def verify(self, c: Lun) -> NetworkDisk:
        """Ask the target whether the LUN is a disk, as large as is said, and whether it is free.

        Raises Refused, Failed, Uncertain.
        """
        told = self._ask(c)
        if told["bytes"] < c.size:
            raise Refused(
                f"LUN {c.lun} of {c.target} has {told['bytes']} bytes, the volume has {c.size}"
            )
        why = "" if told["reserved"] is False else _RESERVED[bool(told["reserved"])]
        reserved = why and f"LUN {c.lun} of {c.target} {why}"
        return replace(self._source(c), ids=frozenset(told["ids"]), reserved=reserved)

    def ids(self, c: Lun) -> frozenset[str]:
        """See :class:`moorline.ports.Identifying`."""
        known = self._ids.get((c.portal, c.target, c.lun))
        return frozenset(self._ask(c)["ids"]) if known is None else known

    def size(self, c: Lun) -> int:
        """See :class:`moorline.ports.Sizing`."""
        bytes: int = self._ask(c)["bytes"]
        return bytes

    def connect(self, c: Lun) -> None:
        """Nothing is made; the LUN is only verified."""
        self.verify(c)

    def disconnect(self, c: Lun) -> None:
        """There is nothing to undo: QEMU logs out."""

    def _source(self, c: Lun) -> NetworkDisk:
        return NetworkDisk(
            *("iscsi", f"{c.target}/{c.lun}", (c.portal,)),
            initiator=self._initiator,
            login=c.login,
        )

    def _ask(self, c: Lun) -> Mapping[str, Any]:
        question = {
            "portal": c.portal,
            "target": c.target,
            "lun": c.lun,
            "initiator": self._initiator or _TRYING,
            "user": c.login.user if c.login else "",
            "password": c.login.password.reveal() if c.login else "",
        }
        told = self._host.call(
            Call(f"the iSCSI target at {c.portal}", _CHILD, Secret(question), self._deadline)
        )
        if len(self._ids) >= _MAX_KNOWN:
            self._ids.clear()
        self._ids[c.portal, c.target, c.lun] = frozenset(told["ids"])
        return told


def _first(info: ConnectionInfo, field: str) -> object:
    """The value of *field*, or the first of its plural, which Cinder sends if there are several."""
    several = info.value(f"{field}s")
    if info.has(field) or several is None:
        return info.value(field)
    if not isinstance(several, list) or not several:
        raise Refused(f"the connection's {field}s is no list of some")
    return several[0]


def _portal(value: object) -> str:
    text = spelled(value) if isinstance(value, str) else ""
    if not text:
        raise Refused("the connection's target_portal is missing or odd: HOST:PORT")
    host, _, port = text.rpartition(":")
    return server(host, int(port)) if port.isdecimal() and host else server(text, PORTS["iscsi"])


def _target(value: object) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise Refused("the connection's target_iqn is missing or odd")
    return value


def _lun(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_LUN:
        raise Refused("the connection's target_lun is missing or odd")
    return value


def _login(info: ConnectionInfo) -> NetworkLogin | None:
    method = info.value("auth_method")
    if method in (None, "", "None"):
        return None
    if method != "CHAP":
        raise Refused("the connection's auth_method is not CHAP, and no other is known")
    user, password = (
        info.text(field, _MAX_SECRET_BYTES) for field in ("auth_username", "auth_password")
    )
    return NetworkLogin(user, Secret(password))
