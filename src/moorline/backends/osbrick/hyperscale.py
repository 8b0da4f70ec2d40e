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
from moorline.backends.osbrick.properties import block_facts
from moorline.discovery import Finding, Found
from moorline.errors import MoorlineError, Refused
from moorline.model import Foreign, Format, Link, Linked, LinkName, Unknown, VolumeId
from moorline.ports import Mount
from moorline.secret import Secret

DEVICES = Path("/dev")
_NAME = re.compile(r"\{([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\}")
_SCHEME = "veritas_hyperscale://"


class HyperScale(OsBrick[BlockVolume]):
    """HyperScale volumes.

    Their device is ``/dev/`` and the first 31 characters of the GUID, as the
    protocol has it (os-brick's vrtshyperscale.py of 2020), so two volumes can
    share a path: the device there is given to a guest only if hscli says that it
    is this volume's.
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
            **block_facts(info),
        )

    # --- Discovering, Diagnosing ---

    def places(self) -> Sequence[Path]:
        """None of its own: libvirt makes device nodes in each guest's /dev itself."""
        return []

    def links(self) -> Sequence[Found]:
        """Volumes that we began to connect and have not disconnected."""
        found = []
        for hold in self._locks.glob(f"{self._hold_prefix()}*.command"):
            with suppress(Refused):
                c = self._of(f"{{{hold.stem.removeprefix(self._hold_prefix())}}}")
                link = self.inspect(c)
                found.append(Found(self.link_name(c), None if isinstance(link, Linked) else link))
        return found

    def claims(self, mount: Mount) -> bool:
        return False

    def clear(self, link: LinkName) -> None:
        """Disconnect a volume that :meth:`links` told; as :meth:`disconnect`."""
        for hold in self._locks.glob(f"{self._hold_prefix()}*.command"):
            name = f"{{{hold.stem.removeprefix(self._hold_prefix())}}}"
            if str(DEVICES / name[1:32]) == link:
                self.disconnect(self._of(name))
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

    def _of(self, name: str) -> BlockVolume:
        return self.parse({"driver_volume_type": self.kind, "data": {"name": name}})

    def _own(self, c: BlockVolume) -> Link | None:
        """A device that we did not begin to connect may be of a volume with a like GUID."""
        if self._begun(c):
            return None
        try:
            told = self._told(c)
        except MoorlineError as e:
            return Unknown(f"it cannot be told whose {c.device} is: {e}", hangs=False)
        return None if told else Foreign(f"{c.device} is the device of another volume")

    def _identify(self, c: BlockVolume, device: Device) -> None:
        if not self._told(c):
            raise Refused(
                f"hscli does not say that {c.device} is this volume",
                hint="the GUIDs of two volumes may begin alike: disconnect the other one",
            )

    def _still_ours(self, c: BlockVolume) -> bool:
        return self._told(c)

    def _told(self, c: BlockVolume) -> bool:
        return str(c.device) in self.ask("paths", c)["paths"]


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
