"""VMDKs on the datastores of a vCenter: nothing to connect, the hypervisor reaches them itself."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from moorline.backends.connection_info import ConnectionInfo
from moorline.errors import Refused
from moorline.model import DatastoreDisk, Format, Link, Linked, LinkName, ShadowDisk, VolumeId
from moorline.ports import Host, Option, Values

_SCHEME = "vmdk://"
_DATACENTER = "?datacenter="
_MACHINE = re.compile(r"vm-[0-9]{1,20}")
_MAX_NAME_CHARACTERS = 80
"""Characters of a datastore's or a datacenter's name."""


@dataclass(frozen=True, slots=True)
class Vmdk:
    """A disk by its path, or by the machine that Cinder keeps it in."""

    source: DatastoreDisk | ShadowDisk
    volume: VolumeId | None = None
    name: str = ""
    """The link is the volume."""


class Datastore:
    """VMDKs, by Cinder's connection or as an operator names them.

    Cinder's VMware driver gives the reference of a machine whose one disk is
    the volume (the "shadow VM", ``cinder/volume/drivers/vmware/vmdk.py``),
    and what else it gives (path, datastore, its own password) is not used: the
    path changes when the storage is rebalanced, the machine does not.

    Only vCenter knows whether the disk is there, so the hypervisor's check and
    attach find out, not :meth:`verify`.
    """

    kind: ClassVar[str] = "vmdk"
    yields: ClassVar[frozenset[type]] = frozenset({DatastoreDisk, ShadowDisk})
    options: ClassVar[Sequence[Option]] = ()

    @classmethod
    def from_options(cls, host: Host, values: Values) -> Datastore:
        return cls()

    def from_url(self, url: str, format: Format | None) -> Mapping[str, Any]:
        """``vmdk://DATASTORE/folder/disk.vmdk[?datacenter=NAME]`` to a connection. Raises Refused.

        *format*: raw, if it is given.
        """
        if format not in (None, "raw"):
            raise Refused(f"a VMDK is not {format}", hint="leave the format out")
        datastore, _, path = url.removeprefix(_SCHEME).partition("/")
        path, _, datacenter = path.partition(_DATACENTER)
        if not path:
            raise Refused(f"{url[:80]!r} does not name a VMDK", hint=f"{_SCHEME}DATASTORE/d/x.vmdk")
        data = {"datastore": datastore, "path": path}
        if _DATACENTER in url:
            data["datacenter"] = datacenter
        return {"driver_volume_type": self.kind, "data": data}

    def url(self, c: Vmdk) -> str:
        """See :class:`moorline.ports.Naming`. A machine that Cinder keeps cannot be typed."""
        if isinstance(c.source, ShadowDisk):
            return ""
        within = f"{_DATACENTER}{c.source.datacenter}" if c.source.datacenter else ""
        return f"{_SCHEME}{c.source.datastore}/{c.source.file}{within}"

    def parse(self, connection: Mapping[str, Any]) -> Vmdk:
        """Validate a connection. Raises Refused."""
        info = ConnectionInfo(self.kind, connection)
        info.refuse_options()
        data = connection.get("data", connection)
        if data.get("format"):
            raise Refused("the connection has a format, and a VMDK has no other")
        if "volume" in data:
            return Vmdk(ShadowDisk(_machine(info.text("volume"))), info.volume_id())
        datastore, path = info.text("datastore"), info.file_name("path")
        datacenter = info.text("datacenter") if "datacenter" in data else ""
        for name, kind in ((datastore, "datastore"), (datacenter, "datacenter")):
            if set("[]/\\") & set(name) or len(name) > _MAX_NAME_CHARACTERS or name.startswith("."):
                raise Refused(f"{name[:80]!r} is not the name of a {kind}")
        if not path.endswith(".vmdk"):
            raise Refused(f"{path[:80]!r} is not the name of a VMDK")
        return Vmdk(DatastoreDisk(datastore, path, datacenter), info.volume_id())

    def link_name(self, c: Vmdk) -> LinkName:
        """A name only: nothing appears on this host."""
        if isinstance(c.source, ShadowDisk):
            return LinkName(f"/vmdk/machine/{c.source.machine}")
        within = f"/datacenter/{c.source.datacenter}" if c.source.datacenter else ""
        return LinkName(f"/vmdk{within}/datastore/{c.source.datastore}/{c.source.file}")

    def inspect(self, c: Vmdk) -> Link:
        return Linked(c.source, given=True)

    def verify(self, c: Vmdk) -> DatastoreDisk | ShadowDisk:
        """There is nothing to look at on this host."""
        return c.source

    def connect(self, c: Vmdk) -> None:
        """There is nothing to make."""

    def disconnect(self, c: Vmdk) -> None:
        """There is nothing to undo."""


def _machine(text: str) -> str:
    if not _MACHINE.fullmatch(text):
        raise Refused(f"{text[:80]!r} is not vCenter's reference of a machine")
    return text
