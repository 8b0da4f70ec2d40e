"""A file system daemon that speaks the kernel's FUSE protocol and needs nothing but Python.

It shows a backing directory under any mount type and source, as a vendor's
client would: ``python3 -S -m lab.fuse.daemon --type fuse.quobyte --source quobyte@reg/vol
--control vol.json BACKING MOUNTPOINT``. It returns once the mount is there; a
daemon stays behind until it is unmounted.

Like Quobyte's client, and unlike a directory, the root has size 0. O_DIRECT and
native AIO work; the kernel is told to cache no attributes, so that each look
at the mount reaches the daemon. There are no extended attributes.

The control file is JSON and is read again whenever it changes:

======== ======================= ================================================
key      value                   effect
======== ======================= ================================================
hang     true                    reads no request; who waits can be killed
hang     ["write", …]            takes these requests and sits on them
deaf     true                    … even if who waits is killed (it cannot die)
delay    seconds                 waits before each answer
error    {"read": "EIO", …}      answers with this errno ("*": every request)
die      true                    exits: the mount stays, with ENOTCONN
remember seconds                 lets the kernel remember for so long where a name leads to
late     true                    keeps what it sits on, also when it was cut off; does that once
                                 this is gone
backs    true                    says that a write is stored that it keeps in its memory until
                                 the file is synced or closed
======== ======================= ================================================

Control files are replaced by a rename, so that no half of one is read. Paths
are bytes or text, not pathlib's: it starts in a few milliseconds.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import json
import os
import select
import socket
import struct
import subprocess
import sys
import time
from typing import Any

from lab.fuse.passthrough import MAX_WRITE, Owner, Passthrough, Request, libc

# The kernel's list, in order from 0. "-": unused.
REQUESTS = (
    "- lookup forget getattr setattr readlink symlink - mknod mkdir unlink rmdir rename link "
    "open read write statfs release - fsync setxattr getxattr listxattr removexattr flush init "
    "opendir readdir releasedir fsyncdir getlk setlk setlkw access create interrupt bmap destroy "
    "ioctl poll notify_reply batch_forget fallocate readdirplus rename2 lseek"
)
OPCODES = REQUESTS.split()
UNANSWERED = {"forget", "batch_forget"}

IN_HEADER = struct.Struct("<IIQQIIIHH")  # length opcode unique node uid gid pid extensions pad
OUT_HEADER = struct.Struct("<IiQ")  # length error unique
MS_NOSUID, MS_NODEV = 2, 4


class Control:
    """The control file as it is now."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._stamp: tuple[int, ...] | None = None
        self._now: dict[str, Any] = {}

    def now(self) -> dict[str, Any]:
        if self._path is None:
            return self._now
        try:
            st = os.stat(self._path)
            stamp = (st.st_ino, st.st_mtime_ns, st.st_size)
            if stamp != self._stamp:
                with open(self._path) as file:
                    self._now = json.load(file)
                self._stamp = stamp
        except FileNotFoundError:
            self._now, self._stamp = {}, None
        return self._now


class Daemon:
    """Reads requests, answers them, and misbehaves as the control file says."""

    def __init__(self, device: int, handlers: Passthrough, control: Control) -> None:
        self._device = device
        self._handlers = handlers
        self._control = control
        self._kept: list[Request] = []

    def serve(self) -> None:
        """Return when the file system is unmounted or its connection aborted."""
        poll = select.poll()
        poll.register(self._device, select.POLLIN)
        buffer = bytearray(MAX_WRITE + 4096)
        while True:
            events = poll.poll(100)
            if events and events[0][1] & select.POLLERR:
                self._come_late()
                return
            control = self._control.now()
            if control.get("die"):
                return
            if control.get("hang") is True:
                time.sleep(0.05)
                continue
            if not control.get("late"):
                kept, self._kept = self._kept, []
                for request in kept:
                    self._take(request, control)
            if events and not self._read(buffer, control):
                return

    def _read(self, buffer: bytearray, control: dict[str, Any]) -> bool:
        try:
            length = os.readv(self._device, [buffer])
        except OSError as e:
            # ENOENT: the request was interrupted before we read it.
            return e.errno in (errno.EINTR, errno.EAGAIN, errno.ENOENT)
        _, opcode, unique, node, uid, gid, *_ = IN_HEADER.unpack_from(buffer)
        body = memoryview(buffer)[IN_HEADER.size : length]
        name = OPCODES[opcode] if opcode < len(OPCODES) else "-"
        self._take(Request(name, unique, node, uid, gid, body), control)
        return True

    def _take(self, request: Request, control: dict[str, Any]) -> None:
        if request.name == "interrupt":
            self._interrupt(request, control)
        elif request.name in UNANSWERED:
            getattr(self._handlers, request.name)(request)
        elif request.name in control.get("hang", ()):
            self._kept.append(request._replace(body=bytes(request.body)))
        else:
            if "delay" in control:
                time.sleep(control["delay"])
            self._handlers.remember = control.get("remember", 0)
            self._handlers.backs = control.get("backs", False)
            errors = control.get("error", {})
            self._answer(request, errors.get(request.name) or errors.get("*"))

    def _come_late(self) -> None:
        """Do what was taken before the connection was gone, where the control file says so."""
        if not self._control.now().get("late"):
            return
        while self._control.now().get("late"):
            time.sleep(0.05)
        for request in self._kept:
            self._answer(request, None)

    def _interrupt(self, request: Request, control: dict[str, Any]) -> None:
        (unique,) = struct.unpack_from("<Q", request.body)
        for kept in self._kept:
            if kept.unique == unique and not control.get("deaf"):
                self._kept.remove(kept)
                self._reply(unique, -errno.EINTR, b"")
                return

    def _answer(self, request: Request, fault: str | None) -> None:
        handler = getattr(self._handlers, request.name, None)
        try:
            if fault:
                raise OSError(getattr(errno, fault), "as the control file says")
            if handler is None:
                raise OSError(errno.ENOSYS, request.name)
            self._reply(request.unique, 0, handler(request))
        except OSError as e:
            self._reply(request.unique, -(e.errno or errno.EIO), b"")

    def _reply(self, unique: int, error: int, body: bytes) -> None:
        try:
            header = OUT_HEADER.pack(OUT_HEADER.size + len(body), error, unique)
            os.writev(self._device, [header, body])
        except OSError as e:
            if e.errno not in (errno.ENOENT, errno.ENODEV):  # nobody waits any more
                raise


OPTIONS = f"allow_other,default_permissions,max_read={MAX_WRITE}"


def mount(type_: str, source: str, mountpoint: str) -> int:
    """Mount, and return the descriptor on which the requests come. Raises OSError."""
    if os.geteuid():
        return mount_as_user(type_, source, mountpoint)
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,{OPTIONS}"
    texts = (os.fsencode(text) for text in (source, mountpoint, type_))
    if libc.mount(*texts, MS_NOSUID | MS_NODEV, options.encode()):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), mountpoint)
    return device


def mount_as_user(type_: str, source: str, mountpoint: str) -> int:
    """The same by fusermount3(1), which may mount on what is the user's. Raises OSError."""
    options = OPTIONS + ",fsname=" + source.replace("\\", "\\\\").replace(",", "\\,")
    if "." in type_:
        options += f",subtype={type_.partition('.')[2]}"
    ours, theirs = socket.socketpair()
    with ours, theirs:
        done = subprocess.run(
            ["fusermount3", "-o", options, "--", mountpoint],
            env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno())},
            pass_fds=[theirs.fileno()],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise PermissionError(errno.EPERM, done.stderr.strip(), mountpoint)
        (device,) = socket.recv_fds(ours, 1, 1)[1]
    os.set_blocking(device, False)
    return device


def start(
    type_: str,
    source: str,
    backing: str,
    mountpoint: str,
    control: str | None = None,
    owner: Owner | None = None,
) -> None:
    """Mount, and return; a daemon serves until the mount is gone. Raises OSError."""
    os.stat(backing)
    device = mount(type_, source, mountpoint)
    if os.fork():
        os.close(device)
        return
    code = 1
    try:
        detach()
        Daemon(device, Passthrough(backing, owner), Control(control)).serve()
        code = 0
    finally:
        os._exit(code)


def detach() -> None:
    """Let go of all that belongs to who started us."""
    os.setsid()
    os.chdir("/")
    os.umask(0)  # the kernel sends each caller's umask
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):  # also 2: who reads our stderr waits for its end
        os.dup2(null, stream)


def main() -> int:
    parser = argparse.ArgumentParser(description="Show a directory as a FUSE file system.")
    parser.add_argument("--type", required=True, help="as in the mount table: fuse.quobyte")
    parser.add_argument("--source", required=True, help="as in the mount table")
    parser.add_argument("--control", help="JSON file that tells it to misbehave")
    parser.add_argument("backing")
    parser.add_argument("mountpoint")
    args = parser.parse_args()
    paths = [p and os.path.abspath(p) for p in (args.backing, args.mountpoint, args.control)]
    try:
        start(args.type, args.source, *paths)
    except OSError as e:
        print(f"lab.fuse: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
