"""What all connections to the stand-in share."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lab.novalink.faults import Faults
from lab.novalink.model import System


@dataclass
class Job:
    status: str
    results: dict[str, str]
    exception: str
    polls: int
    """How often it is still running when asked."""


@dataclass
class Service:
    """Its state, and what was asked of it."""

    system: System
    faults: Faults
    user: str
    password: str
    mode: Literal["novalink", "traditional", "hmc"] = "novalink"
    tokens: set[str] = field(default_factory=set)
    logons: int = 0
    connections: int = 0
    cookies: int = 0
    """Calls that brought a cookie back."""
    redirect: str = ""
    """Where calls are sent instead of being answered, if anywhere."""
    idle: float | None = None
    """Seconds after which a silent connection is closed."""
    updating: int = 0
    """Updates under way."""
    jobs: dict[str, Job] = field(default_factory=dict)
    queues: dict[str, int] = field(default_factory=dict)
    """What each client of the event queue has been told: the system's version."""
    trace: list[tuple[str, str, int]] = field(default_factory=list)
    """Method, path and status of every call."""
    rendered: dict[tuple[Any, ...], tuple[bytes, str]] = field(default_factory=dict)
    """Entries and their ETags, by object, group and the system's version."""
    session_files: Path = field(default_factory=lambda: Path(tempfile.gettempdir()))

    def updates(self) -> int:
        """How many updates were answered 200."""
        return sum(1 for method, _, status in self.trace if (method, status) == ("POST", 200))
