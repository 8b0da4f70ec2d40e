"""Nova's VMware driver as nova-compute makes it, against the lab's vCenter.

Real: the driver with all its modules, oslo.vmware and its SOAP client, the plug-in. Not real:
vCenter (the lab's), Glance (a dictionary). Nova binds vCenter's address when its modules are
imported, so there is one vCenter for a process, and this is imported before them.
"""

from __future__ import annotations

import atexit
import os
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from lab.vcenter import GIB, VCenter

# Else Nova patches the process, and TLS in it calls itself for ever.
os.environ["OS_NOVA_DISABLE_EVENTLET_PATCHING"] = "true"

STORES = {"VVOL": "vvol1", "VMFS": "vmfs1", "NFS": "nfs1", "NFS41": "nfs41", "vsan": "vsan1"}
LAB = VCenter(
    [
        {"Name": name, "Type": kind, "Capacity": 1000 * GIB, "Free": (800 - 100 * n) * GIB}
        for n, (kind, name) in enumerate(STORES.items())
    ],
    vms=1,
    described=True,
)
LAB.__enter__()
atexit.register(LAB.__exit__, None, None, None)

import nova.conf  # noqa: E402

CONF = nova.conf.CONF
FILE = LAB.directory / "nova.conf"
FILE.write_text(
    f"""[DEFAULT]
my_ip = 10.0.0.1
host = compute1
transport_url = fake:/
state_path = {LAB.directory}
[vnc]
enabled = false
[oslo_concurrency]
lock_path = {LAB.directory}/locks
[vmware]
host_ip = localhost
host_port = {LAB.port}
host_username = {LAB.user}
host_password = {LAB.password}
ca_file = {LAB.ca}
cluster_name = {LAB.cluster}
task_poll_interval = 0.02
api_retry_count = 1
"""
)
CONF(["--config-file", str(FILE)], project="nova")

from moorline_nova.vmware import VMwareVCDriver  # noqa: E402
from nova import context, objects, rpc  # noqa: E402
from nova.virt.vmwareapi import driver, ds_util, images, vm_util  # noqa: E402

objects.register_all()
rpc.init(CONF)
CONTEXT = context.RequestContext("user", "project", is_admin=True)
STOCK = driver.VMwareVCDriver
CACHE = "10.0.0.1_base"


class Glance:
    """Has the images of a test."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}
        self.uploaded: dict[str, bytes] = {}

    def get(self, context: Any, image_id: str, **_: Any) -> dict[str, Any]:
        return {"size": len(self.data.get(image_id, b"")), "name": "image", "locations": []}

    def download(self, context: Any, image_id: str) -> Iterator[bytes]:
        data = self.data[image_id]
        return (data[start : start + 65536] for start in range(0, len(data), 65536))

    def update(self, context: Any, image_id: str, metadata: Any, data: Any) -> None:
        self.uploaded[image_id] = data.read(65536)


def start(regex: str, kind: Any = VMwareVCDriver, **vmware: Any) -> Any:
    """The driver as nova-compute starts it, for the datastores that *regex* names."""
    for name, value in {"datastore_regex": regex, "pbm_enabled": False, **vmware}.items():
        CONF.set_override(name, value, group="vmware")
    vm_util.vm_refs_cache_reset()
    ds_util.dc_cache_reset()
    made = kind(None)
    made.init_host("compute1")
    return made


def flavor(root_gb: int, **more: Any) -> Any:
    return objects.Flavor(
        name=f"m1.{root_gb}",
        memory_mb=512,
        vcpus=1,
        root_gb=root_gb,
        ephemeral_gb=more.get("ephemeral_gb", 0),
        swap=more.get("swap", 0),
        extra_specs=more.get("extra_specs", {}),
    )


def image_meta(image_id: str, size: int, **properties: Any) -> Any:
    ova = properties.pop("ova", False)
    return objects.ImageMeta(
        id=image_id,
        name="image",
        size=size,
        status="active",
        disk_format=properties.pop("disk_format", "vmdk"),
        container_format="ova" if ova else "bare",
        properties=objects.ImageMetaProps.from_dict(properties),
    )


def instance(root: Any, meta: Any = None, **more: Any) -> Any:
    made = objects.Instance(
        CONTEXT,
        uuid=str(uuid.uuid4()),
        id=1,
        display_name="web",
        hostname="web",
        image_ref=meta.id if meta else "",
        flavor=root,
        old_flavor=None,
        new_flavor=None,
        memory_mb=root.memory_mb,
        vcpus=root.vcpus,
        project_id="project",
        user_id="user",
        node="node",
        host="compute1",
        config_drive="",
        task_state=None,
        vm_state="building",
        system_metadata={"image_disk_format": "vmdk"},
        metadata={},
        progress=0,
        **more,
    )
    made.obj_reset_changes()
    return made


def volume(machine: Any, name: str) -> dict[str, Any]:
    """How Cinder's VMDK driver tells of a volume: a machine that holds it."""
    return {
        "driver_volume_type": "vmdk",
        "serial": name,
        "data": {"volume": machine, "volume_id": name, "name": name},
    }


def devices(*connections: Mapping[str, Any], boot: bool = False) -> dict[str, Any]:
    """Nova's block device information for volumes; *boot*: the first is the root."""
    return {
        "block_device_mapping": [
            {
                "connection_info": each,
                "boot_index": 0 if boot and n == 0 else None,
                "disk_bus": None,
                "mount_device": f"/dev/sd{chr(ord('b') + n)}",
            }
            for n, each in enumerate(connections)
        ],
        "ephemerals": [],
        "swap": None,
    }


__all__ = ["CACHE", "CONTEXT", "LAB", "STOCK", "STORES", "Glance", "images", "start"]
