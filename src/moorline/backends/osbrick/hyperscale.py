"""Veritas HyperScale volumes: Cinder's ``veritas_hyperscale``, connected by ``hscli``."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from moorline.backends.connection_info import ConnectionInfo
from moorline.backends.osbrick.backend import BlockVolume, OsBrick
from moorline.backends.osbrick.device import Device
from moorline.backends.osbrick.properties import DECIPHERED, block_facts
from moorline.errors import Refused
from moorline.model import Foreign, Format, LinkName, VolumeId
from moorline.ports import Mount
from moorline.ports.inspection import Finding, GuestDisk
from moorline.ports.recognising import Recognised
from moorline.secret import Secret

DEVICES = Path("/dev")
_NAME = re.compile(r"\{([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\}")
_DEVICE = re.compile(r"/dev/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{7}")
_SCHEME = "veritas_hyperscale://"


class HyperScale(OsBrick[BlockVolume]):
    """HyperScale volumes.

    Their device is ``/dev/`` and the first 31 characters of the GUID, as the
    protocol has it (os-brick's vrtshyperscale.py of 2020). So the path identifies
    the volume but for one whose GUID begins alike, which is told by what was begun
    here, and for a stale node, whose device another volume has by now.
    """

    kind: ClassVar[str] = "veritas_hyperscale"
    protocol: ClassVar[str] = "VERITAS_HYPERSCALE"
    commands_hold: ClassVar[bool] = True

    def from_url(self, url: str, format: Format | None) -> Mapping[str, Any]:
        """``veritas_hyperscale://GUID`` to a connection. Raises Refused."""
        if format not in (None, "raw"):
            raise Refused(f"a block device is not {format}", hint="leave the format out")
        name = f"{{{url.removeprefix(_SCHEME).strip('{}')}}}"
        device_path(name)
        return {"driver_volume_type": self.kind, "data": {"name": name}}

    def url(self, c: BlockVolume) -> str:
        """See :class:`moorline.ports.Naming`."""
        return f"{_SCHEME}{c.id}"

    def parse(self, connection: Mapping[str, Any]) -> BlockVolume:
        """Validate a connection. Raises Refused."""
        info = ConnectionInfo(self.kind, connection)
        name = info.text("name")
        device = device_path(name)
        return BlockVolume(
            device=device,
            id=name[1:-1],
            properties=Secret({"name": name}),
            volume=info.volume_id() or VolumeId(name[1:-1]),
            **block_facts(info, DECIPHERED),
        )

    def recognise(
        self,
        disk: GuestDisk,
        mount: Mount | None,
        *,
        ours: bool = False,
        known: Sequence[Any] = (),
    ) -> Recognised | None:
        """See :class:`moorline.ports.recognising.Recognising`.

        The device's name lacks the last characters of the GUID: the disk's serial has them,
        which Nova and we set.
        """
        if not _DEVICE.fullmatch(disk.path):
            return None
        for id in (disk.mark, disk.serial):
            name = f"{{{id}}}"
            if _NAME.fullmatch(name) and str(device_path(name)) == disk.path:
                return Recognised({"driver_volume_type": self.kind, "data": {"name": name}})
        raise Refused(
            f"{disk.path} may be a HyperScale volume, and the disk's serial does not say which",
            hint="give the disk's connection: --connections",
        )

    # --- Discovering, Diagnosing ---

    def clear(self, link: LinkName) -> None:
        """Disconnect a volume that :meth:`links` told; as :meth:`disconnect`."""
        for volume in self._begun_volumes():
            if self.link_name(volume) == link:
                self.disconnect(volume)
                return
        raise Refused(f"{link} is no HyperScale volume that was connected here")

    def diagnose(self) -> Sequence[Finding]:
        """Whether hscli is installed."""
        if shutil.which("hscli"):
            return []
        return [
            Finding(
                "missing-client",
                self.kind,
                "there is no command hscli",
                f"{self.kind} volumes are wanted here, and cannot be connected without it",
                "command -v hscli",
            )
        ]

    # --- how ---

    def _of(self, id: str) -> BlockVolume:
        return self.parse({"driver_volume_type": self.kind, "data": {"name": f"{{{id}}}"}})

    def _other_volume(self, c: BlockVolume) -> Foreign | None:
        """Another volume whose GUID begins alike, if that was connected and *c* was not."""
        if not self._begun(c):
            for other in self._begun_volumes():
                if other.device == c.device:
                    return Foreign(f"{c.device} is the device of volume {other.id}")
        return None

    def _identify(self, c: BlockVolume, device: Device) -> None:
        if foreign := self._other_volume(c):
            raise Refused(foreign.reason, hint="their GUIDs begin alike: disconnect that one first")
        for other in self._begun_volumes():
            with suppress(OSError):
                if other.device != c.device and other.device.stat().st_rdev == device.number:
                    raise Refused(
                        f"{c.device} and {other.device} are the same device",
                        hint="one of the nodes is stale: detach both volumes",
                    )
        if not self.ask("paths", c)["paths"]:
            raise Refused(f"hscli says that {c.device} is not this volume")


def device_path(name: str) -> Path:
    """Where the device of the volume *name* appears. Raises Refused.

    The protocol cuts the name's first character and all after the 32nd, which
    fits ``{GUID}`` alone: ``volume-GUID`` would be ``/dev/olume-…``.
    """
    if not _NAME.fullmatch(name):
        raise Refused(
            f"{name[:80]!r} is not the name of a HyperScale volume",
            hint="Cinder must name them volume_name_template = {%s}: a lower-case UUID in braces",
        )
    return DEVICES / name[1:32]
