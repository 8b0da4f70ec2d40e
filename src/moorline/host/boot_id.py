"""Tells one boot of this machine from another."""

from __future__ import annotations

from pathlib import Path

from moorline.errors import Unavailable

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """The kernel's id of this boot. Raises Unavailable."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError as e:
        raise Unavailable(f"{BOOT_ID} cannot be read: {e.strerror}") from e
