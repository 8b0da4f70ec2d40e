"""vSphere: guests and their disks on the datastores of a vCenter, Virtual Volumes among them."""

from moorline.hypervisors.vsphere.client.session import Logon, Session
from moorline.hypervisors.vsphere.hypervisor import VSphere
from moorline.hypervisors.vsphere.provision.provisioner import Provisioner

__all__ = ["Logon", "Provisioner", "Session", "VSphere"]
