"""A guest, a share with an honest volume, and what is not the guest's: nothing of it may change.

The share is mounted already, for a volume that is attached to another guest. So
a refusal that comes before the connection is used shows as no call of
mount.quobyte, and one that needs a look at the file as nothing mounted or unmounted.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from scene import Scene, Volume, mount_table

from lab.guest import Guest, pattern

OUTSIDE = "/run/moorline-lab/outside.raw"
ID = "deadbeef-0000-4000-8000-00000000f00d"


@dataclass
class Siege:
    """A guest that somebody tries to give what it must not get."""

    scene: Scene
    guest: Guest
    honest: Volume
    before: tuple[Any, ...] = ()

    def state(self) -> tuple[Any, ...]:
        """All that an attach could change."""
        domains = self.scene.libvirt.listAllDomains()
        return (
            self.scene.share.cluster.calls(),
            mount_table(),
            self.rows(),
            [d.XMLDesc() + d.XMLDesc(2) for d in domains],
            sorted((p.name, p.lstat().st_uid) for p in self.scene.share.path.iterdir()),
            Path(OUTSIDE).stat().st_uid,
        )

    def rows(self) -> list[Any]:
        """What is recorded, as the database has it."""
        assert self.scene.moorline.state is not None
        database = sqlite3.connect(self.scene.moorline.state / "moorline.db")
        with closing(database):
            return database.execute("select key, value from entry where not gone").fetchall()

    def refuse(self, connection: Any, *words: str) -> None:
        """It must be refused for the reason that *words* give, and change nothing."""
        text = connection if isinstance(connection, str) else json.dumps(connection)
        before = self.state()
        done = self.scene.moorline(
            "attach", self.guest.name, "--connection", "-", "--quiet", stdin=text, code=None
        )
        assert done.returncode == 3, (connection, done.returncode, done.stdout, done.stderr)
        assert done.stdout == ""
        assert done.stderr.startswith("moorline: ")
        for word in words:
            assert word in done.stderr, (connection, done.stderr)
        lines = done.stderr.splitlines()
        assert len(lines) <= 2, lines  # the reason and a hint
        assert all(line.isprintable() and len(line) < 600 for line in lines)
        assert self.state() == before, connection

    def data(self, **fields: Any) -> dict[str, Any]:
        return self.scene.share.connection(**{"name": "hostile", "volume_id": ID, **fields})


@pytest.fixture
def siege(scene: Scene, guest: Guest) -> Any:
    outside = Path(OUTSIDE)
    outside.write_bytes(b"not yours\n" * 100000)
    outside.chmod(0o600)
    honest = scene.volume("honest.raw")
    scene.attach(guest.name, honest)
    yield Siege(scene, guest, honest)
    # After all of that, the honest volume is none the worse.
    guest.write(honest.id, "unharmed")
    assert honest.bytes() == pattern("unharmed")
    scene.detach(guest.name, honest)
    assert scene.is_clean()
    outside.unlink()
