"""HyperScale's back end on the stand-in, for the contract and for what is its alone."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from lab import loops
from lab.hyperscale.installation import HyperScale, HyperScaleVolume
from moorline.backends.osbrick import hyperscale
from moorline.host.linux import Linux
from moorline.testing.contracts.backend import BackendRig

GUID = "8ee71c33-dcd0-4267-8f2b-e0742ecabe9f"
ALIKE = "8ee71c33-dcd0-4267-8f2b-e0742ec00000"
"""Its first 31 characters are those of GUID."""


class HyperScaleRig(BackendRig):
    def __init__(self, product: HyperScale, host: Linux, directory: Path) -> None:
        self.product = product
        self.locks = directory / "os-brick"
        self.host = host
        self.backend = hyperscale.HyperScale(host, self.locks, deadline=20, patience=0.5)
        self.volume = product.volume(id=GUID)
        self.alike = product.volume(id=ALIKE)
        self.second = product.volume()
        self.good = self.volume.connection()
        self.other = self.second.connection()
        self.missing = {**self.good, "data": {"name": "{00000000-0000-4000-8000-000000000000}"}}
        self.respelled = (
            {**self.good, "serial": "abc"},
            {"driver_volume_type": "veritas_hyperscale", **self.good["data"]},
            {**self.good, "data": {**self.good["data"], "format": "raw"}},
        )
        self.unfit = {
            "another's device": self.alike.connection(),
            "too small": self.volume.connection(size=1),
        }
        self.hostile = {
            repr(name): self.connection(name=name)
            for name in (
                "",
                GUID,
                f"volume-{GUID}",
                f"{{{GUID.upper()}}}",
                f"{{{GUID}}}\n",
                f"{{{GUID}}}x",
                "{../../../../../etc/passwd-00000000000}",
                "-{}",
                None,
                7,
            )
        } | {
            "qcow2": self.volume.connection(format="qcow2"),
            "mount options": self.volume.connection(options="-o x"),
            "a size that is text": self.volume.connection(size="1"),
            "a size below nothing": self.volume.connection(size=-1),
            "a size that is a boolean": self.volume.connection(size=True),
        }

    def connection(self, **data: Any) -> dict[str, Any]:
        return {"driver_volume_type": "veritas_hyperscale", "data": data}

    def volumes(self) -> tuple[HyperScaleVolume, ...]:
        return self.volume, self.alike, self.second

    def world(self) -> object:
        """Devices, as the kernel has them and as /dev shows them, and what is kept of them."""
        nodes = sorted(
            (path.name, path.lstat().st_rdev)
            for path in Path("/dev").iterdir()
            if not path.name.startswith("loop")  # the stand-in's own
        )
        kept = sorted(path.name for path in self.locks.glob("*"))
        return [volume.loop for volume in self.volumes()], nodes, kept

    def kill(self) -> None:
        number = self.volume.loop
        assert number is not None
        loops.detach(number)

    def usurp(self) -> None:
        self.volume.device.write_text("somebody's notes")

    def remove(self) -> None:
        hscli("disconnect_volume", volume_guid=self.volume.name)

    def tear_down(self) -> None:
        self.product.clear()
        for volume in self.volumes():  # what a test put there
            volume.device.unlink(missing_ok=True)


def hscli(operation: str, **fields: str) -> subprocess.CompletedProcess[str]:
    """Call the stand-in as its vendor's other tools would."""
    return subprocess.run(
        ["hscli", json.dumps({"operation": operation, **fields})],
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
