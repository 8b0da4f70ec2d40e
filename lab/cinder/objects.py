"""What the stand-in for Cinder has, and how it is told to misbehave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass
class Volume:
    """One of Cinder's. *connection*: what its driver answers; a connector's host comes in."""

    id: str
    name: str
    connection: dict[str, Any]
    status: str = "available"
    multiattach: bool = False
    size: int = 1
    encrypted: bool = False
    extended: Callable[[int], str] = lambda size: "in-use"
    """What becomes of it when it was extended, to *size* GiB, once somebody saw it at that."""
    asked: int = 0


@dataclass
class Attachment:
    """One of Cinder's."""

    id: str
    volume: str
    instance: str | None
    status: str = "reserved"
    connector: dict[str, Any] | None = None
    connection: dict[str, Any] | None = None
    elsewhere: bool = False
    """It is of another project than the token's."""


@dataclass
class Misbehaviour:
    """What is done to the next requests of a method whose path ends or goes on so."""

    method: str
    path: str
    times: int = 1
    slow_seconds: float = 0.0
    status: int = 0
    """Answered instead; 0: what would be."""
    after: bool = False
    """The deed is done all the same."""
    drop: bool = False
    """The connection is cut instead of an answer."""


class Answer(Exception):
    """An error that is to be answered."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
