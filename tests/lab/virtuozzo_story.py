"""A volume on a Virtuozzo Storage cluster, a guest, and what must be so of them."""

from __future__ import annotations

import grp
import json
import pwd
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from lab import host
from lab.command import Moorline
from lab.guest import Guest
from lab.virtuozzo.cluster import Cluster
from moorline.testing.faults import Fault

OWNER = Path(__file__).with_name("owner.py")
ID = "aaaaaaaa-0000-4000-8000-000000000001"
KILLED = -9


class Story:
    """A volume on a cluster with a password, a guest, and what must be so."""

    def __init__(self, moorline: Moorline, cluster: Cluster, guest: Guest) -> None:
        assert moorline.state is not None
        self.moorline = moorline
        self.cluster = cluster
        self.guest = guest
        self.state = moorline.state
        self.config = self.state.with_name("nova.conf")
        qemu = pwd.getpwuid(host.qemu_user())
        self.user, self.group = qemu.pw_name, grp.getgrgid(qemu.pw_gid).gr_name
        self.config.write_text(
            f"[libvirt]\nvzstorage_mount_user={self.user}\nvzstorage_mount_group={self.group}\n"
        )
        self.connection = self.state.with_name("connection.json")
        self.make()
        self.publish()

    def make(self) -> None:
        """Make the volume."""
        self.file = self.cluster.disk(ID)

    def publish(self) -> None:
        """Write the connection with the servers and the password as they are now."""
        self.connection.write_text(json.dumps(self.cluster.connection(ID, volume_id=ID)))

    def run(self, action: str, *more: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        what = ["--connection", str(self.connection)] if action in ("attach", "adopt") else [ID]
        words = [action, self.guest.name, *what, "--config-file", str(self.config), *more]
        return self.moorline(*words, code=code)

    def views(self) -> list[dict[str, Any]]:
        views = self.moorline.json("list", "--config-file", str(self.config))
        assert isinstance(views, list)
        return views

    def killed(self, action: str, at: int, fault: Fault) -> bool:
        """Run it to its effect number *at*; False if it has fewer."""
        attach = action == "attach"
        given = {
            "action": action,
            "guest": self.guest.name,
            "what": json.loads(self.connection.read_text()) if attach else ID,
            "state": str(self.state),
            "at": at,
            "fault": fault.name,
            "files": [str(self.config)],
        }
        ran = subprocess.run(
            [sys.executable, str(OWNER), json.dumps(given)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert ran.returncode in (0, KILLED), ran.stderr
        return ran.returncode == KILLED

    def mounts(self) -> int:
        table = Path("/proc/self/mountinfo").read_text()
        return table.count(f" - fuse.vstorage vstorage://{self.cluster.name} ")

    def check(self, attached: bool) -> None:
        """It is a disk in both halves and mounted once, or neither, and nothing is left."""
        assert self.mounts() == attached
        for flags in (0, 2):  # live, VIR_DOMAIN_XML_INACTIVE
            assert (f"ua-{ID}" in self.guest.domain.XMLDesc(flags)) == attached
        assert [(view["volume"], view["seen"]) for view in self.views()] == (
            [(ID, "attached")] if attached else []
        )
        mnt = self.state / "mnt"
        assert attached or not mnt.exists() or list(mnt.iterdir()) == []

    def forget_node(self) -> None:
        shutil.rmtree(host.VSTORAGE / "clusters", ignore_errors=True)
