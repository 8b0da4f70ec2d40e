"""What shall go wrong next."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, fields


@dataclass
class Faults:
    """Each number counts down as it strikes; all are 0 at first."""

    unauthorized: int = 0
    """Calls answered 401 although the session is good."""
    conflict: int = 0
    """Updates answered 412 although the ETag is right."""
    error: int = 0
    """Updates and jobs answered 500, nothing done."""
    error_after: int = 0
    """Updates answered 500 although they were carried out."""
    reject: int = 0
    """Updates answered 400, nothing done."""
    drop: int = 0
    """Updates whose connection is cut before anything is done."""
    drop_after: int = 0
    """Updates that are carried out, and the connection cut without a reply."""
    no_disk: int = 0
    """Updates that make the adapters and leave the disk out."""
    no_target: int = 0
    """Updates that leave the target device out."""
    garbage: int = 0
    """Reads and logons answered 200 with a body that is not XML."""
    busy: int = 0
    """Reads, updates and jobs answered as by a busy Virtual I/O Server, nothing done."""
    unavailable: int = 0
    """Reads answered 503."""
    slow: float = 0.0
    """Seconds that every call waits before anything is done."""
    slow_update: float = 0.0
    """Seconds that an update waits before anything is done."""
    slow_reply: float = 0.0
    """Seconds between an update and its reply."""
    job_exception: int = 0
    """Jobs that fail before anything is done, and tell an exception instead of a result."""
    job_code: int = 0
    """Jobs that fail and tell a code alone."""
    job_polls: int = 0
    """How often a job says that it still runs (does not count down)."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def take(self, name: str) -> bool:
        """Whether the fault strikes now."""
        with self._lock:
            left: int = getattr(self, name)
            if left > 0:
                setattr(self, name, left - 1)
            return left > 0

    def set(self, **faults: float) -> None:
        """Set faults by name. Raises ValueError for a name that is not one."""
        names = {f.name for f in fields(self) if not f.name.startswith("_")}
        if unknown := set(faults) - names:
            raise ValueError(f"no such fault: {', '.join(sorted(unknown))}")
        with self._lock:
            for name, value in faults.items():
                setattr(self, name, value)
