"""vSphere: guests and their disks on the datastores of a vCenter, Virtual Volumes among them."""
