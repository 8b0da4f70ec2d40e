"""The lab's Quobyte: makes registries and volumes, and tells them to misbehave."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class Quobyte:
    """A cluster, as the stand-in commands find it below the lab's directory."""

    def __init__(self, lab: Path, registries: Sequence[str] = ("reg1", "reg2")) -> None:
        self.directory = lab / "quobyte"
        for name in ("volumes", "fuse"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        replace(self.directory / "cluster.json", {"registries": list(registries)})
        self.registries = list(registries)
        calls = self.directory / "calls.jsonl"
        calls.touch()
        calls.chmod(0o666)  # clients that run as other users note their calls too

    def volume(self, name: str, owner: str = "") -> QuobyteVolume:
        """Create the volume if it does not exist. *owner*: the user who will mount it ('' is root).

        A user's daemon can do only what that user may do to the volume's content.
        """
        directory = self.directory / "volumes" / name
        directory.mkdir(exist_ok=True)
        directory.chmod(0o755)
        if owner:
            shutil.chown(directory, owner)
        return QuobyteVolume(self, name, directory)

    def command(self, volume: str = "*", **control: Any) -> None:
        """Set how the commands on *volume* behave (see lab/standin.py); nothing: well."""
        path = self.directory / "control.json"
        now = json.loads(path.read_text()) if path.exists() else {}
        replace(path, {**now, volume: control})

    def calls(self) -> list[dict[str, Any]]:
        """Every call of a client command so far, oldest first."""
        return [json.loads(line) for line in (self.directory / "calls.jsonl").open()]

    def clear(self) -> None:
        """Behave well again, and drop all volumes and calls."""
        (self.directory / "control.json").unlink(missing_ok=True)
        for name in ("volumes", "fuse"):
            shutil.rmtree(self.directory / name)
            (self.directory / name).mkdir()
        os.truncate(self.directory / "calls.jsonl", 0)


class QuobyteVolume:
    """A volume of the cluster: a share with disk images on it."""

    def __init__(self, cluster: Quobyte, name: str, path: Path) -> None:
        self.cluster = cluster
        self.name = name
        self.path = path
        """The volume's content, behind the back of every mount of it."""

    @property
    def export(self) -> str:
        return f"{','.join(self.cluster.registries)}/{self.name}"

    def disk(self, name: str, size: int = 16 << 20) -> Path:
        """Create a raw disk image (sparse) and return its path behind the mount."""
        path = self.path / name
        with path.open("xb") as file:
            file.truncate(size)
        path.chmod(0o600)
        return path

    def connection(self, name: str, format: str = "raw", **data: Any) -> dict[str, Any]:
        """Cinder's connection_info for the disk image *name* on this volume."""
        fields = {"export": self.export, "name": name, "format": format, "options": None}
        return {"driver_volume_type": "quobyte", "data": {**fields, **data}}

    def daemon(self, **control: Any) -> None:
        """Set how the daemons of its mounts behave (see fuse.py); nothing: well."""
        replace(self.cluster.directory / "fuse" / f"{self.name}.json", control)

    def command(self, **control: Any) -> None:
        """Set how mount and umount of this volume behave; nothing: well."""
        self.cluster.command(self.name, **control)


def replace(path: Path, content: Any) -> None:
    """Write JSON so that no reader sees half of it."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        json.dump(content, file)
    temporary = Path(file.name)
    temporary.chmod(0o644)
    temporary.rename(path)
