"""The mount table, who uses a mount, and the kernel's control of FUSE."""
