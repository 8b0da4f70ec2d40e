"""One mount at a mount point: what became of its client, and how it is taken away."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

from moorline.errors import Failed, MoorlineError
from moorline.model import Broken, Client
from moorline.ports import Command, Host, Mount

_CUT_OFF = (errno.ENOTCONN, errno.ECONNABORTED)
"""What the kernel answers for a FUSE client that is gone; one that lives may answer it, too."""


def topmost(host: Host, at: Path) -> Mount | None:
    """The topmost mount at *at*."""
    return next((m for m in reversed(host.mounts()) if m.target == str(at)), None)


def covering(host: Host, path: Path) -> Mount | None:
    """The mount on which *path* lies, by the mount table."""
    on_the_way = {str(path), *map(str, path.parents)}
    mounts = [mount for mount in host.mounts() if mount.target in on_the_way]
    # Of equally deep ones the last is on top.
    return max(reversed(mounts), key=lambda mount: len(mount.target), default=None)


def said(error: OSError) -> str:
    """What a look at a mount met, in words."""
    text = error.strerror or str(error)
    if error.errno == errno.EACCES:
        return f"{text} (a FUSE mount of another user needs allow_other to be seen by us)"
    return text


def broken(host: Host, at: Path, mount: Mount, error: OSError) -> Broken:
    """A mount of which a look met *error*: dead only if its client is seen to be gone."""
    reason = f"the mount at {at} fails: {said(error)}"
    if error.errno not in _CUT_OFF:
        return Broken(reason)
    clients = host.clients(mount)
    if clients is None:
        return Broken(reason)
    if not clients:
        return Broken(f"{reason}; its client has ended", Client.GONE)
    runs = f"its client, {', '.join(clients)}, still runs"
    if host.has_ended(mount):
        return Broken(f"{reason}: its connection has ended, but {runs}", Client.CUT_OFF)
    return Broken(f"{reason}; {runs}", Client.ALIVE)


def unmount(
    host: Host, at: Path, mount: Mount, deadline: float, is_dead: Callable[[], bool]
) -> None:
    """Unmount *mount*, the topmost at *at*. Raises Failed (busy), Uncertain.

    Lazily only if somebody keeps it busy and it *is dead*: a lazy umount hides a mount
    that guests still write through, but nobody writes through that one, and who starts
    now needs its place.
    """
    # -c: resolving the path would ask a file system that may be dead.
    argv = ("umount", "-c", str(at))
    try:
        try:
            host.run(Command(argv, deadline))
        except Failed:
            if not (_is_still(host, at, mount) and is_dead()):
                raise
            host.run(Command((*argv[:-1], "-l", argv[-1]), deadline))
    except Failed as e:
        if _is_still(host, at, mount):
            raise _busy(host, at, e) from e
    else:
        if _is_still(host, at, mount):
            raise Failed(f"umount says that it unmounted {at}, which is still mounted")


def _is_still(host: Host, at: Path, mount: Mount) -> bool:
    now = topmost(host, at)
    return now is not None and now.id == mount.id


def _busy(host: Host, at: Path, error: MoorlineError) -> Failed:
    users = ", ".join(host.users_of(at))
    return Failed(f"{at} is still mounted: {error}" + (f"; in use by {users}" if users else ""))
