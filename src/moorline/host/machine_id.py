"""Which machine this is: machine-id(5), as a digest, since the id itself is not to be shown."""

from __future__ import annotations

import hashlib
from pathlib import Path

MACHINE_ID = Path("/etc/machine-id")


def machine_id_digest(file: Path = MACHINE_ID) -> str:
    """Equal on one installation of a system, different on a clone that was made right; '': none."""
    try:
        id = file.read_text().strip()
    except OSError:
        return ""
    # An image that no machine was started from yet has an empty one, or this word.
    if id in ("", "uninitialized"):
        return ""
    return hashlib.sha256(f"moorline {id}".encode()).hexdigest()[:32]
