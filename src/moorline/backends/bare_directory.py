"""Makes and removes mount points, which take no data while nothing is mounted on them.

A guest whose disk path led to the bare directory would write to the host's own
disk. So nobody can write to it while nothing is mounted there: mode 000, and
immutable (ioctl_iflags(2)) against root where the file system knows that.
"""

from __future__ import annotations

import array
import fcntl
import hashlib
import os
import pwd
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from moorline.errors import Failed

_GET_FLAGS, _SET_FLAGS = 0x80086601, 0x40086602
_IMMUTABLE = 0x10
_NAME = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]*)?-[0-9a-f]{16}")


@lru_cache(maxsize=1024)
def name(kind: str, what: str) -> str:
    """A file name for *what*: readable, short, and unique."""
    readable = re.sub(r"[^A-Za-z0-9_.]+", "-", what)[-40:].lstrip("-.")
    digest = hashlib.sha256(f"{kind}\n{what}".encode()).hexdigest()[:16]
    return f"{readable}-{digest}"


def is_name(text: str) -> bool:
    """Whether :func:`name` may have made it."""
    return bool(_NAME.fullmatch(text))


def prepare(path: Path, user: str = "") -> None:
    """Make *path* a directory on which *user* ('' is us) can mount. Raises Failed.

    A user who is not root can mount only where he can write, so he gets to own the directory.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        _set_immutable(path, False)
        if user and os.geteuid() == 0:
            entry = pwd.getpwnam(user)
            os.chown(path, entry.pw_uid, entry.pw_gid)
        if user or os.geteuid() != 0:
            path.chmod(0o700)
        else:
            path.chmod(0)
            _set_immutable(path, True)
    except KeyError as e:
        raise Failed(f"there is no user {user!r} on this host") from e
    except OSError as e:
        raise Failed(f"the mount point {path} cannot be prepared: {e.strerror}") from e


def remove(path: Path) -> None:
    """Remove *path* if it is there and empty. Files in it are left for a person."""
    with suppress(OSError):
        _set_immutable(path, False)
        path.rmdir()


def _set_immutable(path: Path, wanted: bool) -> None:
    # Not every file system has the flag, and only root may change it.
    with suppress(OSError), _opened(path) as directory:
        flags = array.array("L", [0])
        fcntl.ioctl(directory, _GET_FLAGS, flags)
        if bool(flags[0] & _IMMUTABLE) is not wanted:
            flags[0] ^= _IMMUTABLE
            fcntl.ioctl(directory, _SET_FLAGS, flags)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield directory
    finally:
        os.close(directory)
