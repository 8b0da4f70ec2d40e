"""Calls into a library that may hang, each in a fork of a process that has it imported."""
