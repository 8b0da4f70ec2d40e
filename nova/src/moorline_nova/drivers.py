"""The drivers that Nova finds beneath ``nova.virt.moorline``."""

from __future__ import annotations

from typing import Any

from moorline_nova.driver import LibvirtDriver

__all__ = ["LibvirtDriver"]


def __getattr__(name: str) -> Any:
    """The VMware driver, loaded on demand: it needs oslo.vmware, which not all hosts have."""
    if name != "VMwareVCDriver":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from moorline_nova.vmware import VMwareVCDriver
    except ImportError as e:  # which Nova would take for a driver that is not there
        raise RuntimeError(
            "compute_driver = moorline.VMwareVCDriver: Nova's VMware driver cannot be loaded"
            f" ({e}); it needs the package oslo.vmware, and a Nova that still has it (32 to 34)"
        ) from e
    return VMwareVCDriver
