"""Whether the state directory is as it must be: who may read it, and whether it can be written."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from moorline.discovery import Finding

LEAST_FREE = 16 << 20
"""Bytes below which the state's disk is nearly full: a wish takes a few thousand."""
_PRIVATE = ("key", "moorline.db", "events.jsonl")


def examine(state_dir: Path) -> list[Finding]:
    """What is wrong with *state_dir*. It lies on the host's own disk, and does not hang."""
    return [*_permissions(state_dir), *_room(state_dir)]


def _permissions(state_dir: Path) -> Iterator[Finding]:
    for name in _PRIVATE:
        file = state_dir / name
        try:
            found = file.stat()
        except OSError:
            continue  # it is made when it is needed
        if stat.S_IMODE(found.st_mode) & 0o077:
            yield Finding(
                "open-state",
                str(file),
                f"others than its owner may use {file} (mode {stat.S_IMODE(found.st_mode):04o})",
                "it guards the credentials in the connections",
                f"chmod 0600 {file}",
            )
        if found.st_uid not in (0, os.geteuid()):
            yield Finding(
                "open-state",
                str(file),
                f"{file} belongs to user {found.st_uid}, who is neither root nor we",
                "who owns it can read the connections, and change what is wished",
                f"chown {os.geteuid()} {file}",
            )


def _room(state_dir: Path) -> Iterator[Finding]:
    room = os.statvfs(state_dir)
    if room.f_bavail * room.f_frsize < LEAST_FREE:
        yield Finding(
            "full-state-disk",
            str(state_dir),
            f"the disk of {state_dir} has less than {LEAST_FREE >> 20} MiB left",
            "wishes cannot be recorded once it is full",
            f"df -h {state_dir}",
        )
