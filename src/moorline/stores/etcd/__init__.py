"""The store of a fleet: etcd, over plain synchronous gRPC."""

import os

# gRPC's library in C has a log of its own, on standard error; what it says is in our errors, too.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
