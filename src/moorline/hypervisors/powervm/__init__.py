"""PowerVM through NovaLink: files become vSCSI disks of LPARs."""

from moorline.hypervisors.powervm.hypervisor import PowerVM
from moorline.hypervisors.powervm.session import Logon, NovaLink
from moorline.hypervisors.powervm.slots import MemorySlots, Slot, Slots, StoredSlots

__all__ = ["Logon", "MemorySlots", "NovaLink", "PowerVM", "Slot", "Slots", "StoredSlots"]
