"""A machine called box, made to order, and what is left of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lab.vcenter import VCenter
from lab.vcenter.images import stream
from lab.vcenter.rig import MIB
from moorline.hypervisors.vsphere.provision.images import Image, inspect
from moorline.hypervisors.vsphere.provision.machine_request import MachineRequest

GRAINS = {0: b"boot", 5: b"data" * 99, 9: b"more"}
DISK = stream(8 * MIB, GRAINS)


def saved(directory: Path, data: bytes, name: str = "disk.vmdk") -> Image:
    path = directory / name
    path.write_bytes(data)
    return inspect(path)


def order(image: Image | None, **more: Any) -> MachineRequest:
    return MachineRequest(**{"name": "box", "image": image, "memory": 64, **more})


def left(lab: VCenter, name: str = "box") -> list[str]:
    """What lies on any datastore beneath a folder of that name."""
    stores = ("vvol1", "vmfs1", "nfs1", "nfs41", "vsan1", "vmfs-local")
    found = [f"[{store}] {file}" for store in stores for file in lab.files(store)]
    return [file for file in found if file.split("] ")[1].startswith(f"{name}/")]
