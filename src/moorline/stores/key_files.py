"""Key files: written whole, for their owner alone, and read only if nobody else can."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from moorline.errors import Denied, Refused, Unavailable
from moorline.secret import Secret

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def write_new(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Write a file that is not there yet, whole or not at all: half a key would lock us out.

    Raises Refused (it is there already), Denied or Unavailable (it cannot be written).
    """
    try:
        _write(path, content, mode, replace=False)
    except FileExistsError:
        raise Refused(f"{path} is there already") from None


def write_over(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Write a file in the place of the one that is there, if any; readers see one or the other.

    Raises Denied or Unavailable (it cannot be written).
    """
    _write(path, content, mode, replace=True)


def private(path: Path) -> Secret[bytes]:
    """Read a file that is for its owner alone.

    Raises Denied (others can read it, or we cannot), Unavailable.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            if os.fstat(fd).st_mode & _OTHERS:
                raise Denied(f"{path} can be read by others", hint=f"chmod 600 {path}")
            return Secret(file.read())
    except PermissionError as e:
        raise Denied(f"{path} cannot be read: {e.strerror}") from e
    except OSError as e:
        raise Unavailable(f"{path} cannot be read: {e.strerror}") from e


def _write(path: Path, content: bytes, mode: int, *, replace: bool) -> None:
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(fd, "wb") as file:
                os.fchmod(fd, mode)
                file.write(content)
                file.flush()
                os.fsync(fd)
            if replace:
                fresh.replace(path)
            else:
                os.link(fresh, path)  # fails, rather than replaces, if someone was faster
        finally:
            fresh.unlink(missing_ok=True)
    except FileExistsError:
        raise
    except PermissionError as e:
        raise Denied(f"{path} cannot be written: {e.strerror}") from e
    except OSError as e:
        raise Unavailable(f"{path} cannot be written: {e.strerror}") from e
