"""The lab's Virtuozzo Storage: makes clusters, and tells them to misbehave."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab.quobyte.cluster import replace


class Virtuozzo:
    """Clusters, as the stand-in commands find them below the lab's directory."""

    def __init__(self, lab: Path) -> None:
        self.directory = lab / "virtuozzo"
        for name in ("clusters", "fuse"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        (self.directory / "calls.jsonl").touch()

    def cluster(
        self, name: str, *, servers: Sequence[str] = ("mds1.lab", "mds2.lab"), password: str = ""
    ) -> Cluster:
        """Create a cluster. Without *servers* it is found by DNS."""
        cluster = Cluster(self, name, tuple(servers), password)
        cluster.path.mkdir(exist_ok=True)
        self.publish(cluster)
        return cluster

    def publish(self, cluster: Cluster) -> None:
        """Let the commands know the cluster as it is now."""
        known = self._read("clusters.json")
        facts = {
            "servers": cluster.servers,
            "password": cluster.password or None,
            "dns": not cluster.servers,
        }
        replace(self.directory / "clusters.json", {**known, cluster.name: facts})

    def command(self, cluster: str = "*", **control: Any) -> None:
        """Set how the commands behave (see client.py); nothing: well."""
        now = self._read("control.json")
        replace(self.directory / "control.json", {**now, cluster: control})

    def calls(self) -> list[list[str]]:
        """The arguments of every call so far, oldest first."""
        lines = (self.directory / "calls.jsonl").read_text().splitlines()
        return [json.loads(line)["argv"] for line in lines]

    def clear(self) -> None:
        """Behave well again, and drop all clusters and calls."""
        for name in ("control.json", "clusters.json"):
            (self.directory / name).unlink(missing_ok=True)
        for name in ("clusters", "fuse"):
            shutil.rmtree(self.directory / name)
            (self.directory / name).mkdir()
        os.truncate(self.directory / "calls.jsonl", 0)

    def _read(self, name: str) -> dict[str, Any]:
        path = self.directory / name
        return json.loads(path.read_text()) if path.exists() else {}


class Cluster:
    """A cluster: a share with disk images on it."""

    def __init__(
        self, owner: Virtuozzo, name: str, servers: tuple[str, ...], password: str
    ) -> None:
        self.owner = owner
        self.name = name
        self.servers = servers
        self.password = password
        self.path = owner.directory / "clusters" / name
        """The content, behind the back of every mount of it."""

    @property
    def export(self) -> str:
        servers = f"{','.join(self.servers)}:/" if self.servers else ""
        return f"{servers}{self.name}" + (f":{self.password}" if self.password else "")

    def rotate(self, password: str) -> None:
        """Change the password; nodes that know the old one are not let in any more."""
        self.password = password
        self.owner.publish(self)

    def disk(self, name: str, size: int = 16 << 20) -> Path:
        """Create a raw disk image (sparse) and return its path behind the mount."""
        path = self.path / name
        with path.open("xb") as file:
            file.truncate(size)
        return path

    def connection(self, name: str, format: str = "raw", **data: Any) -> dict[str, Any]:
        """Cinder's connection_info for the disk image *name* on this cluster."""
        fields = {"export": self.export, "name": name, "format": format}
        return {"driver_volume_type": "vzstorage", "data": {**fields, **data}}

    def daemon(self, **control: Any) -> None:
        """Set how the daemons of its mounts behave (see fuse.py); nothing: well."""
        replace(self.owner.directory / "fuse" / f"{self.name}.json", control)

    def command(self, **control: Any) -> None:
        """Set how the commands on this cluster behave; nothing: well."""
        self.owner.command(self.name, **control)
