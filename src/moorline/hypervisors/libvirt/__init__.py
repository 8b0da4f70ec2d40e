"""libvirt's QEMU guests."""

from moorline.hypervisors.libvirt.hypervisor import Libvirt
from moorline.hypervisors.libvirt.machines import LibvirtMachines

__all__ = ["Libvirt", "LibvirtMachines"]
