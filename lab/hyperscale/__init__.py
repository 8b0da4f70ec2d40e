"""Veritas HyperScale: an installation on loop devices, its command, and the story of it."""
