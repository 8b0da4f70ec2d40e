"""A NovaLink partition as its operator set it up: shares, and Moorline's settings."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import mounttable
from lab.command import Moorline
from lab.novalink import NovaLink
from lab.novalink.rig import image

EXPORT = "filer.example.com:/vol/cinder"
"""The NFS share, as Cinder's connections name it."""
_MOUNTS = {"nfs": ("nfs4", EXPORT), "gpfs": ("gpfs", "gpfs0")}
"""Type and source of each in the mount table."""


@dataclass(frozen=True)
class Volume:
    """A raw image, and what Cinder says of it.

    Neither of Cinder's own drivers for NFS and GPFS puts the volume's id into the
    ``data``: whoever asks for the connection adds it as ``serial``, as Nova does
    (cinder/volume/drivers/nfs.py and ibm/gpfs.py, nova/virt/block_device.py).
    """

    id: str
    file: Path
    connection: Path


@dataclass(frozen=True)
class Shares:
    """Where the operator mounted the NFS share and the GPFS file system."""

    directory: Path
    nfs: Path
    gpfs: Path

    def on_nfs(self, id: str, *, format: str = "raw") -> Volume:
        name = f"volume-{id}"
        data = {"export": EXPORT, "name": name, "options": None, "format": format}
        more = {"mount_point_base": "/var/lib/cinder/mnt"}
        return self._volume(
            id, self.nfs / name, {"driver_volume_type": "nfs", "data": data, **more}
        )

    def on_gpfs(self, id: str) -> Volume:
        name = f"volume-{id}"
        data = {"name": name, "device_path": str(self.gpfs / name)}
        return self._volume(id, self.gpfs / name, {"driver_volume_type": "gpfs", "data": data})

    def mount(self, kind: str) -> None:
        """Mount one of them, as the operator does."""
        type_, source = _MOUNTS[kind]
        at = self.directory / kind
        daemon = [sys.executable, "-S", "-m", "lab.fuse.daemon", "--type", f"fuse.{type_}"]
        subprocess.run([*daemon, "--source", source, f"{at}-server", str(at)], check=True)

    def _volume(self, id: str, path: Path, info: dict[str, Any]) -> Volume:
        connection = self.directory / f"{id}.json"
        connection.write_text(json.dumps({**info, "serial": id}))
        return Volume(id, image(path.parent, path.name), connection)


@contextmanager
def shares(directory: Path) -> Iterator[Shares]:
    """Mount an NFS and a GPFS stand-in; unmounting fails if somebody still holds one."""
    made = Shares(directory, directory / "nfs", directory / "gpfs")
    with ExitStack() as stack:
        for kind in _MOUNTS:
            at = directory / kind
            at.mkdir()
            at.with_name(f"{kind}-server").mkdir()
            made.mount(kind)
            stack.callback(subprocess.run, ["umount", str(at)], check=True)
        yield made


def moorline(novalink: NovaLink, directory: Path, at: Shares) -> Moorline:
    """The command on that partition, with a state directory and settings in *directory*."""
    password = directory / "password"
    password.touch(mode=0o600)
    password.write_text(novalink.password)
    settings = directory / "moorline.conf"
    settings.write_text(
        "[libvirt]\n"
        f"connection_uri = powervm://localhost:{novalink.port}\n"
        f"nfs_mounted = {EXPORT}={at.nfs}\n"
        f"gpfs_mount_point_base = {at.gpfs}\n"
        "[powervm]\n"
        f"novalink_user = {novalink.user}\n"
        f"novalink_password_file = {password}\n"
        f"novalink_ca = {novalink.ca}\n"
    )
    return Moorline(
        directory / "state", before=mounttable.before(), after=("--config-file", str(settings))
    )
