"""Identifies this machine by a digest of machine-id(5); the id itself is confidential."""

from __future__ import annotations

import hashlib
from pathlib import Path

MACHINE_ID = Path("/etc/machine-id")


def machine_id_digest(file: Path = MACHINE_ID) -> str:
    """The digest; '': the machine has no id.

    A clone has another if it was given an id of its own.
    """
    try:
        id = file.read_text().strip()
    except OSError:
        return ""
    # An image that was never booted has an empty id, or this word.
    if id in ("", "uninitialized"):
        return ""
    return hashlib.sha256(f"moorline {id}".encode()).hexdigest()[:32]
