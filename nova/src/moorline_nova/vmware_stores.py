"""Finds out what a datastore is, and what cannot lie on one of Virtual Volumes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nova.virt.vmwareapi import constants, vm_util
from oslo_vmware import vim_util as vutil

from moorline_nova import vmware_known
from moorline_nova.vmware_images import MIB, virtual_size

VVOL = "VVOL"
NOVAS = vmware_known.TYPES
WIDE = NOVAS | {VVOL}
_STREAM = constants.DISK_TYPE_STREAM_OPTIMIZED
_MAX_SIZES = 1000


class Stores:
    """Asks vCenter about its datastores; the answers do not change, and are kept."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._answers: dict[tuple[str, str], Any] = {}

    def is_vvol(self, ref: Any) -> bool:
        """Whether a datastore is one of Virtual Volumes."""
        return self._ask(ref, "summary.type") == VVOL

    def has_folders(self, ref: Any) -> bool:
        """Whether a folder can be made at the datastore's top, as a file system has them."""
        return self._ask(ref, "capability.topLevelDirectoryCreateSupported") is not False

    def _ask(self, ref: Any, what: str) -> Any:
        key = vutil.get_moref_value(ref), what
        if key not in self._answers:
            answer = self._session._call_method(vutil, "get_object_property", ref, what)
            self._answers[key] = answer
        return self._answers[key]


class Fitness:
    """Says why an image, or a volume to boot from, cannot be put on Virtual Volumes."""

    def __init__(self, session: Any, volumeops: Any) -> None:
        self._session = session
        self._volumeops = volumeops
        self._sizes: dict[str, int] = {}

    def size_of(self, context: Any, image: Any) -> int:
        """Bytes of an image's disk; an image never changes. Raises as :func:`virtual_size`."""
        size = self._sizes.get(image.image_id)
        if size is None:
            size = virtual_size(context, image.image_id, is_ova=image.is_ova)
            if len(self._sizes) >= _MAX_SIZES:
                self._sizes.clear()
            self._sizes[image.image_id] = size
        return size

    def against_image(self, context: Any, image: Any) -> str:
        """Why an image cannot be there; empty: it can. Raises what Glance raises."""
        if image.is_iso or image.disk_type != _STREAM:
            kind = "ISO" if image.is_iso else image.disk_type
            return (
                f"Virtual Volumes have no files to upload to: image {image.image_id} ({kind}) has"
                " to be stream-optimized (qemu-img convert -O vmdk -o subformat=streamOptimized,"
                " and the property vmware_disktype=streamOptimized)"
            )
        size = self.size_of(context, image)
        return _odd(size, f"the disk in image {image.image_id}", "resize it and upload it anew")

    def against_volume(self, devices: Sequence[Any]) -> str:
        """Why what an instance boots from cannot be moved there; empty: it can, or need not be."""
        for device in devices:
            if device.get("boot_index") != 0:
                continue
            connection = device["connection_info"]
            if connection["driver_volume_type"] == constants.DISK_FORMAT_ISCSI:
                return "Virtual Volumes have no raw device mappings, as iSCSI volumes need"
            if connection["driver_volume_type"] == constants.DISK_FORMAT_VMDK:
                machine = self._volumeops._get_volume_ref(connection["data"])
                size = vm_util.get_vmdk_info(self._session, machine).capacity_in_bytes
                return _odd(size, "the volume that it boots from", "extend it")
        return ""


def _odd(size: int, what: str, advice: str) -> str:
    """Virtual Volumes take whole MiB (VMware's pages on Virtual Volumes)."""
    if size and size % MIB == 0:
        return ""
    next_size = max(size + -size % MIB, MIB)
    return f"{what} has {size} bytes, which is no whole number of MiB: {advice}, {next_size} bytes"
