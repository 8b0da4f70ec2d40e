"""A host that has nothing but its attachments."""

from __future__ import annotations

from pathlib import Path

from moorline.care.environment import Environment
from moorline.care.eventlog import EventLog
from moorline.host.mount.fuse_abort import FuseConnections

_NOWHERE = Path("/nonexistent")


def unmeasured(path: Path, format: str) -> int:
    raise FileNotFoundError(path)


def bare() -> Environment:
    """No other mounts, nobody who knows of disks without a mark, and no event log."""
    fuse, event_log = FuseConnections(_NOWHERE), EventLog(_NOWHERE)
    return Environment({}, list, fuse, None, event_log, list, lambda guests: (), unmeasured)
