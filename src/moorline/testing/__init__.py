"""Test helpers that ship with Moorline, for its own tests and for vendors' back ends.

``contracts`` are the suites that every implementation runs, ``toys`` are small
worlds to run the core in, ``faults`` kill, fail or confuse at the n-th effect.
"""
