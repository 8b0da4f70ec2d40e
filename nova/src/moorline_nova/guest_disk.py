"""Writes the agent's disk source into Nova's configuration of a guest's disk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nova.virt.libvirt import config

_CACHE = {"direct": ("none", "native"), "writeback": ("writeback", None)}


class GuestDisk(config.LibvirtConfigGuestDisk):  # type: ignore[misc]
    """Nova's class, which can also tell libvirt to leave the file's owner alone.

    Where libvirt does not know that a file system is shared (``fuse.quobyte``,
    ``fuse.vstorage``), it would give the image back to root at the end of a
    migration, under the guest that now runs elsewhere.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.relabel = True

    def format_dom(self) -> Any:
        dom = super().format_dom()
        source = dom.find("source")
        if not self.relabel and source is not None:
            source.append(self._new_node("seclabel", model="dac", relabel="no"))
        return dom


def describe(disk: GuestDisk, source: Mapping[str, Any]) -> None:
    """Write what the agent said of the volume into *disk*."""
    is_block = source["type"] == "BlockDevice"
    disk.source_type = "block" if is_block else "file"
    disk.source_path = source["path"]
    disk.driver_format = source.get("format", "raw")
    disk.relabel = source.get("relabel", True)
    if source.get("discard"):
        disk.driver_discard = "unmap"
    cache, io = _CACHE.get(source.get("caching", ""), (disk.driver_cache, None))
    # Several guests write to a shared disk, so no page cache may be in between.
    disk.driver_cache = "none" if disk.shareable else cache
    disk.driver_io = io if disk.driver_cache == "none" else None
