"""The child that looks at shares: answers questions, one JSON line each, until its input ends.

It is killed when a share hangs, so it keeps no state. It has few imports because a new one
is started then; what one kind of question needs is imported when it is first asked. It says
that it is ready when it has started. Before each look it writes the time into a file that it is
given: only the look itself counts against the share's deadline, and whoever waits is woken once.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any

from moorline.errors import Refused
from moorline.host.process_name import call_self

_MAX_SYMLINKS = 40
"""Symlinks in one path: as many as the kernel follows."""
_NEEDS = {
    "image": "moorline.host.image.check",  # its libraries take 60 ms to import, or seconds
    "opening": "moorline.host.image.open_check",
    "files": "moorline.host.image.files",
    "readable": "pwd",
}


def main() -> None:
    """Answer each line of standard input with one; before the first, say that it has started."""
    call_self("moorline-look")
    begun = int(sys.argv[1])
    os.write(1, b"{}\n")
    for line in sys.stdin.buffer:
        question = json.loads(line)
        if need := _NEEDS.get(question["ask"]):
            import_module(need)
        os.pwrite(begun, f"{time.monotonic():.6f}".encode(), 0)
        os.write(1, json.dumps(answer(question)).encode() + b"\n")


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """Answer a question: ``{"ask": the name of a function below, …its arguments}``."""
    looks: dict[str, Callable[..., dict[str, Any]]] = {
        "root": root,
        "image": image,
        "size": size,
        "follow": follow,
        "readable": readable,
        "files": files,
        "opening": opening,
    }
    try:
        return looks[question.pop("ask")](**question)
    except Refused as e:
        return {"refused": e.message, "hint": e.hint}
    except OSError as e:
        return {"errno": e.errno, "text": e.strerror, "path": e.filename}


def root(path: str, list: bool) -> dict[str, Any]:
    """The facts of :class:`moorline.ports.Root`."""
    st = os.stat(path)  # noqa: PTH116 - pathlib would double the time to start
    if not stat.S_ISDIR(st.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    empty = None
    if list:
        with os.scandir(path) as entries:
            empty = next(entries, None) is None
    return {
        "size": st.st_size,
        "device": st.st_dev,
        "empty": empty,
        "path": os.path.realpath(path),
    }


def image(share: str, **question: Any) -> dict[str, Any]:
    """The root of the share, and the files of the image that were checked. Raises Refused."""
    from moorline.host.image.check import check_image

    return {"root": root(share, list=False), "files": check_image(share, **question)}


def size(path: str, format: str) -> dict[str, Any]:
    """The bytes of a file or a block device; of qcow2 and LUKS images those that a guest sees."""
    _look_up_afresh(path)
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if format == "qcow2":
            from moorline.host.image.qcow2 import HEADER_BYTES, parse

            return {"size": parse(os.read(file, HEADER_BYTES)).size}
        stored = os.lseek(file, 0, os.SEEK_END)
        if format == "luks":
            from moorline.host.image import luks

            return {"size": stored - luks.payload_at(os.pread(file, luks.HEADER_BYTES, 0), stored)}
        return {"size": stored}
    finally:
        os.close(file)


def _look_up_afresh(path: str) -> None:
    """Have the kernel ask a share where a name leads to, which it may remember for a minute.

    It does so before it makes a name (LOOKUP_EXCL), and a file of /proc can have none elsewhere:
    nothing is made, whether the name is there or not.
    """
    with suppress(OSError):
        os.link("/proc/self/status", path)


def follow(paths: list[str], stops: list[str]) -> dict[str, Any]:
    """Where *paths* lead through symlinks; none beneath *stops* is followed. '': unknown."""
    known: dict[str, str | None] = {}
    stopped = frozenset(stops)
    return {"real": [_followed(path, stopped, known) for path in paths]}


def _followed(path: str, stops: frozenset[str], known: dict[str, str | None]) -> str:
    at, rest, links = "", path.split("/")[::-1], 0
    while rest:
        part = rest.pop()
        if part in ("", "."):
            continue
        if part == "..":
            at = at.rpartition("/")[0]
            continue
        at = f"{at}/{part}"
        if at == "/proc":
            return ""  # what it leads to depends on the process that looks
        try:
            target = _target(at, stops, known)
        except OSError:
            return ""
        if not target:
            continue
        links += 1
        if links > _MAX_SYMLINKS:
            return ""
        at = "" if target.startswith("/") else at.rpartition("/")[0]
        rest += target.split("/")[::-1]
    return at or "/"


def _target(at: str, stops: frozenset[str], known: dict[str, str | None]) -> str | None:
    """Where a symlink leads; '': it is none; None: it is beneath *stops*. Raises OSError.

    *known*: what was told of others, those above it among them. Thousands of paths have few
    directories.
    """
    if at in known:
        return known[at]
    above = at.rpartition("/")[0]
    target: str | None = None
    if at not in stops and known.get(above, "") is not None:
        try:
            target = os.readlink(at)  # noqa: PTH115 - pathlib would double the time to start
        except OSError as e:
            if e.errno not in (errno.EINVAL, errno.ENOENT, errno.ENOTDIR):
                raise
            target = ""  # no symlink, or not there: what is made there later has that name
    known[at] = target
    return target


def readable(path: str, user: int, group: int) -> dict[str, Any]:
    """Whether the user can open it for reading; only opening it tells."""
    if os.geteuid() not in (0, user):
        return {"readable": True}
    try:
        with _as(user, group):
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except PermissionError:
        return {"readable": False}
    return {"readable": True}


@contextmanager
def _as(user: int, group: int) -> Iterator[None]:
    """Access file systems as that user, with all of its groups."""
    if os.geteuid() == user:
        yield
        return
    groups, own = os.getgroups(), os.getegid()
    try:
        os.setgroups(_groups(user, group))
        os.setegid(group)
        os.seteuid(user)
        yield
    finally:
        os.seteuid(0)
        os.setegid(own)
        os.setgroups(groups)


def _groups(user: int, group: int) -> list[int]:
    import pwd

    try:
        return os.getgrouplist(pwd.getpwuid(user).pw_name, group)
    except KeyError:
        return [group]


def opening(**question: Any) -> dict[str, Any]:
    """Whether the file is not locked against being opened so."""
    from moorline.host.image.open_check import opening as free

    return {"free": free(**question)}


def files(images: list[list[str]], like: list[int] | None, first: bool) -> dict[str, Any]:
    """The files of each image, or the errno that looking met."""
    from moorline.host.image.files import look

    inodes = None if like is None else frozenset(like)
    return {"files": look([(path, form) for path, form in images], inodes, first=first)}


if __name__ == "__main__":
    main()
