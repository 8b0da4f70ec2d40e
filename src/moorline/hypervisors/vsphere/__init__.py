"""vSphere: guests and their disks on the datastores of a vCenter, Virtual Volumes among them."""

from moorline.hypervisors.vsphere.hypervisor import VSphere
from moorline.hypervisors.vsphere.provision import Provisioner
from moorline.hypervisors.vsphere.session import Logon, Session

__all__ = ["Logon", "Provisioner", "Session", "VSphere"]
