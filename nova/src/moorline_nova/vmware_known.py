"""Checks that Nova's VMware driver is the known one; in another nothing is replaced.

The driver is the same in Nova 32, 33 and 34. What is compared is the source of all that the
plug-in replaces, overrides, or counts on to behave as it does.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
from operator import attrgetter

from nova import exception

_ROOM = "nova.virt.vmwareapi"
TYPES = frozenset({"VMFS", "NFS", "NFS41", "vsan"})
"""The types of datastores that Nova itself knows."""
DIGESTS = {
    "driver.VMwareVCDriver.__init__": "37d769be0462",
    "ds_util.get_allowed_datastore_types": "d644af126353",
    "ds_util.get_datastore": "e847ffbf9734",
    "ds_util._get_allowed_datastores": "88c84a392729",
    "ds_util._is_datastore_valid": "bedcdd1e6233",
    "imagecache.ImageCacheManager": "c9af865a686c",
    "images._build_import_spec_for_import_vapp": "2c7b79286ad5",
    "images.fetch_image_ova": "30c79e23d96c",
    "vm_util._get_vm_ref_from_vm_uuid": "b162d248639c",
    "vm_util.get_vmdk_info": "489b57833eff",
    "vmops.VMwareVMOps._create_folder_if_missing": "277eeed36c73",
    "vmops.VMwareVMOps._destroy_instance": "9de3c48b77ef",
    "vmops.VMwareVMOps._fetch_image_if_missing": "6cdfb23b7a92",
    "vmops.VMwareVMOps._find_datastore_for_migration": "9842fb2e0e0a",
    "vmops.VMwareVMOps._get_vm_config_info": "3e3105a4bbbd",
    "vmops.VMwareVMOps._use_disk_image_as_full_clone": "113c4ae3e1ca",
    "vmops.VMwareVMOps.rescue": "1bf56eb5d24d",
    "vmops.VMwareVMOps.spawn": "5731b6edb466",
    "vmops.VirtualMachineInstanceConfigInfo": "96208a52a336",
}
"""The first digits of the SHA-256 of each one's source."""


def unknown() -> list[str]:
    """The names of what differs from the known driver or is missing; none: all is as expected.

    Raises ImportError if a module of the driver cannot be imported.
    """
    ds_util = importlib.import_module(f"{_ROOM}.ds_util")
    others = [name for name, digest in DIGESTS.items() if digest_of(name) != digest]
    if ds_util.ALL_SUPPORTED_DS_TYPES != TYPES:
        others.append("ds_util.ALL_SUPPORTED_DS_TYPES")
    if ds_util.get_datastore.__defaults__ != (None, None, TYPES):
        others.append("the defaults of ds_util.get_datastore")
    return others


def digest_of(name: str) -> str:
    """The digest of the source of *name* in Nova's driver; empty: there is none."""
    module, _, path = name.partition(".")
    try:
        source = inspect.getsource(attrgetter(path)(importlib.import_module(f"{_ROOM}.{module}")))
    except (AttributeError, OSError, TypeError):
        return ""
    return hashlib.sha256(source.encode()).hexdigest()[:12]


def require() -> None:
    """Raise NovaException, with an explanation, unless Nova's driver is the known one."""
    if others := unknown():
        raise exception.NovaException(
            "moorline.VMwareVCDriver does not know this Nova, and changes nothing in it: of"
            f" {_ROOM}, {', '.join(others)} is not as in Nova 32 to 34. Use the moorline-nova that"
            " was made for this Nova, or compute_driver = vmwareapi.VMwareVCDriver, which has no"
            " Virtual Volumes"
        )
