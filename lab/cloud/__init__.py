"""A small OpenStack in the lab: keystone, placement, Nova, Cinder and compute hosts, all real."""
