"""Ceph: a real cluster of the distribution's, and a stand-in for the command that asks one."""
