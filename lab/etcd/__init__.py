"""Real etcd servers with TLS on loopback, that can be killed, stopped, cut off and filled."""

from lab.etcd.cluster import Cluster
from lab.etcd.member import Missing

__all__ = ["Cluster", "Missing"]
