"""The other block protocols of os-brick: iSCSI, Fibre Channel, NVMe-oF, and its ``local``.

What connecting makes has a name that only os-brick learns (``/dev/sdc``, ``/dev/dm-3``),
and the kernel gives such names away again: a stale one is another volume (CVE-2023-2088).
So the bridge makes a link of its own beneath ``/dev/moorline``, to the name that udev
gives by the volume's identity (``/dev/disk/by-id/…``), and guests are given that link.
"""

from __future__ import annotations

import hashlib
import json
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from moorline.backends.allowed_directories import LOCAL_DIRECTORIES, Directories
from moorline.backends.connection_info import ConnectionInfo, absolute_path
from moorline.backends.host_use import HostUse
from moorline.backends.osbrick.backend import BlockVolume, OsBrick
from moorline.backends.osbrick.device import Device
from moorline.backends.osbrick.properties import DECIPHERED, block_facts, properties_of
from moorline.errors import Refused
from moorline.model import BlockDevice, Format, Link, Linked
from moorline.ports import Host, Option, Values
from moorline.secret import Secret

LINKS = Path("/dev/moorline")
MAX_PATHS = 64
_PLAIN = re.compile(r"[A-Za-z0-9\[][A-Za-z0-9.:_\[\]-]{0,222}")
"""Texts that can be arguments of os-brick's commands: no option, no separator."""
_DIGEST = re.compile(r"[0-9a-f]{16}")
_WWN = re.compile(r"[0-9A-Fa-f]{16}")


class Fabric(OsBrick[BlockVolume]):
    """A volume that is reached through a network, perhaps on several paths."""

    @abstractmethod
    def identity(self, info: ConnectionInfo) -> object:
        """The volume's identity, however the connection spells it. Raises Refused."""

    def parse(self, connection: Mapping[str, Any]) -> BlockVolume:
        """Validate a connection. Raises Refused."""
        info = ConnectionInfo(self.kind, connection)
        identity = json.dumps([self.kind, self.identity(info)])
        digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
        return BlockVolume(
            device=self._device(digest),
            id=digest,
            properties=Secret(properties_of(connection)),
            volume=info.volume_id(),
            **block_facts(info, DECIPHERED),
        )

    def _of(self, id: str) -> BlockVolume:
        if not _DIGEST.fullmatch(id):
            raise Refused(f"{id[:80]!r} is no volume of ours")
        return BlockVolume(device=self._device(id), id=id, properties=Secret({}))

    def _device(self, id: str) -> Path:
        return LINKS / f"{self.kind}-{id}"


class Iscsi(Fabric):
    """iSCSI: ``target_portal(s)``, ``target_iqn(s)``, ``target_lun(s)``."""

    kind: ClassVar[str] = "iscsi"
    protocol: ClassVar[str] = "ISCSI"

    def identity(self, info: ConnectionInfo) -> object:
        _many(info, "target_portal", _PLAIN)
        return _pairs(_many(info, "target_iqn", _PLAIN), _luns(info))


class FibreChannel(Fabric):
    """Fibre Channel: ``target_wwn(s)``, ``target_lun(s)``."""

    kind: ClassVar[str] = "fibre_channel"
    protocol: ClassVar[str] = "FIBRE_CHANNEL"

    def identity(self, info: ConnectionInfo) -> object:
        wwns = [wwn.lower() for wwn in _many(info, "target_wwn", _WWN)]
        return _pairs(wwns, _luns(info))


class NvmeOf(Fabric):
    """NVMe over fabrics: ``target_nqn`` (or ``nqn``) and the namespace's identity."""

    kind: ClassVar[str] = "nvmeof"
    protocol: ClassVar[str] = "NVMEOF"

    def identity(self, info: ConnectionInfo) -> object:
        nqn = _plain(info, "target_nqn" if info.has("target_nqn") else "nqn")
        return [nqn, _namespace(info)]

    def _identify(self, c: BlockVolume, device: Device) -> None:
        data = c.properties.reveal()
        for field in ("vol_uuid", "volume_nguid"):
            wanted = _hex(data.get(field))
            if wanted and not any(wanted in _hex(wwid) for wwid in device.wwids):
                raise Refused(f"{c.device} is not the volume whose {field} the connection has")


class Local(OsBrick[BlockVolume]):
    """A block device that is there already, by os-brick's own ``local`` connector.

    Its kind is ``osbrick_local``: ``local`` means the host's files and devices
    without os-brick. It serves to try out os-brick without a storage.
    """

    kind: ClassVar[str] = "osbrick_local"
    protocol: ClassVar[str] = "LOCAL"
    given: ClassVar[bool] = True
    options: ClassVar[Sequence[Option]] = (*OsBrick.options, LOCAL_DIRECTORIES)

    def __init__(
        self, host: Host, locks: Path, *, directories: Directories | None = None, **more: Any
    ) -> None:
        super().__init__(host, locks, **more)
        self._directories = directories or Directories()

    @classmethod
    def from_options(cls, host: Host, values: Values) -> Self:
        """Make one. Raises Refused."""
        made = super().from_options(host, values)
        made._directories = Directories.from_options(values)
        return made

    def from_url(self, url: str, format: Format | None) -> Mapping[str, Any]:
        """``osbrick_local:///dev/NAME`` to a connection. Raises Refused."""
        if format not in (None, "raw"):
            raise Refused(f"a block device is not {format}", hint="leave the format out")
        path = url.removeprefix(f"{self.kind}://")
        return {"driver_volume_type": self.kind, "data": {"device_path": path}}

    def url(self, c: BlockVolume) -> str:
        """See :class:`moorline.ports.Naming`."""
        return f"{self.kind}://{c.device}"

    def parse(self, connection: Mapping[str, Any]) -> BlockVolume:
        """Validate a connection. Raises Refused."""
        info = ConnectionInfo(self.kind, connection)
        path = Path(absolute_path(info.text("device_path", 4096)))
        if not path.parent.is_relative_to("/dev"):
            raise Refused(f"{str(path)[:80]!r} is not beneath /dev")
        return BlockVolume(
            device=path,
            id=path.name,
            properties=Secret(properties_of(connection)),
            volume=info.volume_id(),
            **block_facts(info, DECIPHERED),
        )

    def inspect(self, c: BlockVolume) -> Link:
        """Always there, as far as we are concerned: :meth:`verify` looks closer."""
        return Linked(self.source(c), given=True)

    def demand_for_others(self, c: BlockVolume) -> None:
        """See :class:`moorline.ports.Confined`."""
        self._directories.demand_for_others(c.device)

    def verify(self, c: BlockVolume) -> BlockDevice:
        """As for every block device; also checks that it lies where local disks may."""
        self._directories.demand(c.device)
        return super().verify(c)

    def connect(self, c: BlockVolume) -> None:
        """Nothing is made; the device is only verified."""
        self.verify(c)

    def _identify(self, c: BlockVolume, device: Device) -> None:
        HostUse(self._sys).demand_free_device(c.device, device.number, self._host.mounts())
        path = self.ask("connect", c)["device"]["path"]
        if path != str(c.device):
            raise Refused(f"os-brick takes {path} for {c.device}")


def _many(info: ConnectionInfo, field: str, form: re.Pattern[str]) -> list[str]:
    """The texts in *field*. Raises Refused."""
    found = []
    for value in _values(info, field):
        if not isinstance(value, str) or not form.fullmatch(value):
            raise Refused(f"the connection's {field} is missing or odd")
        found.append(value)
    return found


def _luns(info: ConnectionInfo) -> list[int]:
    found = []
    for value in _values(info, "target_lun"):
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 64:
            raise Refused("the connection's target_lun is missing or odd")
        found.append(value)
    return found


def _values(info: ConnectionInfo, field: str) -> list[Any]:
    """The values of *field*, or of its plural, which Cinder sends if there are several."""
    values = info.value(f"{field}s")
    if values is not None and not isinstance(values, list):
        raise Refused(f"the connection's {field}s is not a list")
    values = values or info.value(field)
    values = values if isinstance(values, list) else [values]
    if not 0 < len(values) <= MAX_PATHS:
        raise Refused(f"the connection has {len(values)} of {field}, not 1 to {MAX_PATHS}")
    return values


def _pairs(targets: list[str], luns: list[int]) -> list[tuple[str, int]]:
    """Each target with its LUN; a single LUN belongs to all targets."""
    if len(luns) not in (1, len(targets)):
        raise Refused("the connection has not as many LUNs as targets")
    luns = luns if len(luns) > 1 else luns * len(targets)
    return sorted(set(zip(targets, luns, strict=True)))


def _plain(info: ConnectionInfo, field: str) -> str:
    text = info.text(field, 223)
    if not _PLAIN.fullmatch(text):
        raise Refused(f"the connection's {field} is odd")
    return text


def _namespace(info: ConnectionInfo) -> str:
    for field in ("vol_uuid", "volume_nguid", "ns_id"):
        value = info.value(field)
        if value is not None and (not isinstance(value, str | int) or isinstance(value, bool)):
            raise Refused(f"the connection's {field} does not identify a namespace")
        if _hex(value):
            return f"{field} {_hex(value)}"
    raise Refused("the connection does not identify the namespace (vol_uuid, volume_nguid, ns_id)")


def _hex(value: object) -> str:
    """The hexadecimal digits of an identity, which has many spellings."""
    return re.sub(r"[^0-9a-f]", "", str(value or "").lower().rpartition(".")[2])
