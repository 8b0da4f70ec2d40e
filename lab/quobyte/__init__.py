"""Quobyte: a cluster of files, its client commands, and the story that is told of it."""
