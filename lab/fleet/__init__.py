"""A fleet in the lab: hosts with mounts, processes, network, /dev and libvirt of their own."""
