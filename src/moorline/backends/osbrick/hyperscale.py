"""Veritas HyperScale volumes: Cinder's ``veritas_hyperscale``, connected by ``hscli``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from moorline.backends.connection_info import ConnectionInfo
from moorline.backends.osbrick.backend import BlockVolume, OsBrick
from moorline.backends.osbrick.device import Device
from moorline.backends.osbrick.properties import block_facts
from moorline.errors import MoorlineError, Refused
from moorline.model import Foreign, Format, Link, Unknown, VolumeId
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
            properties=Secret({"name": name}),
            volume=info.volume_id() or VolumeId(name[1:-1]),
            **block_facts(info),
        )

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
