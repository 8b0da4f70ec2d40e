"""A host that has nothing but its attachments."""

from __future__ import annotations

from pathlib import Path

from moorline.care.doctor import Surroundings
from moorline.care.eventlog import Journal
from moorline.host.mount.fuse import FuseConnections

_NOWHERE = Path("/nonexistent")


def bare() -> Surroundings:
    """No other mounts, nobody who knows of disks without a mark, and no event log."""
    return Surroundings({}, list, FuseConnections(_NOWHERE), None, Journal(_NOWHERE), list)
