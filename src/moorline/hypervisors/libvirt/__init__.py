"""libvirt's QEMU guests."""

from moorline.hypervisors.libvirt.hypervisor import Libvirt

__all__ = ["Libvirt"]
