"""Checks the state directory: its permissions, and whether it can be written to."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from moorline.ports.inspection import Finding

MIN_FREE_BYTES = 16 << 20
"""Free bytes below which the disk counts as nearly full: an attachment takes a few thousand."""
_PRIVATE = {
    "key": "it opens the connections, and the credentials in them",
    "moorline.db": "it says what is attached to which guest, and holds the sealed connections",
    "events.jsonl": "it tells of every guest and volume of this host",
    "events.1.jsonl": "it tells of every guest and volume of this host",
}
"""Files that only their owner may read, and why."""


def examine(state_dir: Path) -> list[Finding]:
    """What is wrong with *state_dir*, which is on a local disk and so does not hang."""
    if not state_dir.exists():
        return []  # it is made when it is needed
    return [*_permissions(state_dir), *_room(state_dir)]


def _permissions(state_dir: Path) -> Iterator[Finding]:
    yield from _of_directory(state_dir)
    for name, why in _PRIVATE.items():
        file = state_dir / name
        try:
            found = file.stat()
        except OSError:
            continue  # it is made when it is needed
        mode = stat.S_IMODE(found.st_mode)
        if mode & 0o077:
            what = f"others than its owner may use {file} (mode {mode:04o})"
            yield _open(file, what, why, f"chmod 0600 {file}")
        yield from _of_strangers(file, found, why)


def _of_directory(state_dir: Path) -> Iterator[Finding]:
    found = state_dir.stat()
    mode = stat.S_IMODE(found.st_mode)
    why = (
        "whoever may write there can put another state, or other mount points, in the place of ours"
    )
    if mode & 0o022:
        what = f"others than its owner may write to {state_dir} (mode {mode:04o})"
        yield _open(state_dir, what, why, f"chmod go-w {state_dir}")
    yield from _of_strangers(state_dir, found, why)


def _of_strangers(path: Path, found: os.stat_result, why: str) -> Iterator[Finding]:
    if found.st_uid not in (0, os.geteuid()):
        what = f"{path} belongs to user {found.st_uid}, who is neither root nor we"
        yield _open(path, what, why, f"chown {os.geteuid()} {path}")


def _open(path: Path, what: str, why: str, next: str) -> Finding:
    return Finding("open-state", str(path), what, why, next)


def _room(state_dir: Path) -> Iterator[Finding]:
    room = os.statvfs(state_dir)
    if room.f_flag & os.ST_RDONLY:
        yield Finding(
            "full-state-disk",
            str(state_dir),
            f"the disk of {state_dir} is read-only",
            "nothing can be recorded: no agent and no command can own this host",
            f"findmnt -T {state_dir}",
        )
    elif room.f_bavail * room.f_frsize < MIN_FREE_BYTES:
        yield Finding(
            "full-state-disk",
            str(state_dir),
            f"the disk of {state_dir} has less than {MIN_FREE_BYTES >> 20} MiB left",
            "no attachment is recorded once it is full; what is wanted is kept true all the same",
            f"df -h {state_dir}",
        )
