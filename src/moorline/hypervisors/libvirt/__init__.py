"""libvirt's QEMU guests."""
