"""The store of a fleet: etcd, over plain synchronous gRPC."""
