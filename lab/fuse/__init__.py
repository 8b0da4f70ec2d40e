"""FUSE daemons that can be told to misbehave: what stands beneath the vendors' clients."""
