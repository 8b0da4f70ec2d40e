"""A stand-in for vCenter."""
