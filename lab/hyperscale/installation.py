"""The lab's HyperScale: makes volumes, and tells its command to misbehave."""

from __future__ import annotations

import json
import os
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from lab import loops
from lab.hyperscale import client as hyperscale
from lab.quobyte.cluster import replace


class HyperScale:
    """A HyperScale installation, as the stand-in ``hscli`` finds it below the lab's directory."""

    def __init__(self, lab: Path) -> None:
        self.directory = lab / "hyperscale"
        (self.directory / "volumes").mkdir(parents=True, exist_ok=True)
        self._calls = self.directory / "calls.jsonl"
        self._calls.touch()
        self._calls.chmod(0o666)

    def volume(self, size: int = 16 << 20, *, id: str = "") -> HyperScaleVolume:
        """Create a volume of *size* bytes (sparse). *id*: its UUID, else a new one."""
        name = f"{{{id or uuid.uuid4()}}}"
        with (self.directory / "volumes" / name).open("xb") as file:
            file.truncate(size)
        return HyperScaleVolume(self, name)

    def command(self, volume: str = "*", **control: Any) -> None:
        """Set how hscli behaves for *volume* (see client.py); nothing: well."""
        path = self.directory / "control.json"
        now = json.loads(path.read_text()) if path.exists() else {}
        replace(path, {**now, volume: control})

    def calls(self) -> list[dict[str, Any]]:
        """Every call of hscli so far, oldest first, with the ``message`` that it was given."""
        calls = [json.loads(line) for line in self._calls.open()]
        return [{**call, "message": _message(call["argv"])} for call in calls]

    def clear(self) -> None:
        """Behave well again, and drop all volumes, devices and calls."""
        (self.directory / "control.json").unlink(missing_ok=True)
        for file in (self.directory / "volumes").iterdir():
            HyperScaleVolume(self, file.name).remove()
        os.truncate(self._calls, 0)


class HyperScaleVolume:
    """A volume: a file that becomes a loop device where it is connected."""

    def __init__(self, product: HyperScale, name: str) -> None:
        self.product = product
        self.name = name
        """With its braces, as Cinder and hscli have it."""

    @property
    def id(self) -> str:
        return self.name[1:-1]

    @property
    def file(self) -> Path:
        """The volume's content, behind the back of its device."""
        return self.product.directory / "volumes" / self.name

    @property
    def device(self) -> Path:
        """Where its device is if it is connected."""
        return hyperscale.device_of(self.name)

    @property
    def loop(self) -> int | None:
        """The number of its loop device, if it is connected: the truth, whatever /dev shows."""
        return loops.of(self.file)

    def connection(self, **data: Any) -> dict[str, Any]:
        """Cinder's connection_info."""
        fields = {"export": "hyperscale-sv:/hyperscale", "name": self.name}
        return {"driver_volume_type": "veritas_hyperscale", "data": {**fields, **data}}

    def grow(self, size: int) -> None:
        """Make it larger; its device, if it is connected, shows that at once."""
        os.truncate(self.file, size)
        if (number := self.loop) is not None:
            loops.grow(number)

    def command(self, **control: Any) -> None:
        """Set how hscli behaves for this volume; nothing: well."""
        self.product.command(self.name, **control)

    def remove(self) -> None:
        """Take it away with its device, whoever uses it."""
        number = self.loop
        with suppress(OSError):
            if number is not None and self.device.stat().st_rdev == os.makedev(7, number):
                self.device.unlink()
        if number is not None:
            loops.detach(number)
        self.file.unlink()


def _message(argv: list[str]) -> Any:
    with suppress(ValueError, IndexError):
        return json.loads(argv[1])
    return None
