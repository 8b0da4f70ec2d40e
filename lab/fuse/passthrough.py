"""A directory behind FUSE: what each request of the kernel does to it.

Protocol: ``include/uapi/linux/fuse.h`` in the Linux source. Paths are bytes, as
the kernel gives them.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import time
from typing import NamedTuple

ROOT = 1
MAX_WRITE = 1 << 20
# ASYNC_READ, BIG_WRITES, ASYNC_DIO, PARALLEL_DIROPS, MAX_PAGES
INIT_FLAGS = 1 << 0 | 1 << 5 | 1 << 15 | 1 << 18 | 1 << 22

libc = ctypes.CDLL(None, use_errno=True)


class Request(NamedTuple):
    name: str
    unique: int
    node: int
    uid: int
    gid: int
    body: memoryview | bytes


class Owner(NamedTuple):
    uid: int
    gid: int
    permissions: int


def _kind(entry: os.DirEntry[bytes]) -> int:
    """What a listing says that it is (``d_type`` of readdir(3)); 0: it does not say."""
    kinds = (
        (entry.is_symlink(), stat.S_IFLNK),
        (entry.is_dir(follow_symlinks=False), stat.S_IFDIR),
        (entry.is_file(follow_symlinks=False), stat.S_IFREG),
    )
    return next((kind >> 12 for is_it, kind in kinds if is_it), 0)


class Nodes:
    """The inodes that the kernel knows, each by its parent, its name there and its file.

    Assumption: as with clients of shared storage, which go by a file's id, a name to which another
    client gave another file is another inode; the kernel then takes the old one's name away.
    """

    def __init__(self, root: bytes) -> None:
        self._root = root
        self._place: dict[int, tuple[int, bytes]] = {}
        self._at: dict[tuple[int, bytes], int] = {}
        self._file: dict[int, int] = {}
        self._lookups: dict[int, int] = {}
        self._next = ROOT + 1

    def path(self, node: int, name: bytes = b"") -> bytes:
        parts = [name] if name else []
        while node != ROOT:
            if node not in self._place:
                raise OSError(errno.ESTALE, "the inode's name is gone")
            node, part = self._place[node]
            parts.append(part)
        return b"/".join([self._root, *reversed(parts)])

    def look_up(self, parent: int, name: bytes, file: int) -> int:
        """*file*: the number of its inode."""
        node = self._at.get((parent, name))
        if node is not None and self._file[node] != file:
            self.remove(parent, name)
            node = None
        if node is None:
            node, self._next = self._next, self._next + 1
            self._at[parent, name], self._place[node] = node, (parent, name)
            self._file[node] = file
        self._lookups[node] = self._lookups.get(node, 0) + 1
        return node

    def forget(self, node: int, lookups: int) -> None:
        left = self._lookups.get(node, 0) - lookups
        if left > 0:
            self._lookups[node] = left
            return
        self._lookups.pop(node, None)
        self._file.pop(node, None)
        place = self._place.pop(node, None)
        if place and self._at.get(place) == node:
            del self._at[place]

    def remove(self, parent: int, name: bytes) -> None:
        node = self._at.pop((parent, name), None)
        if node is not None:
            self._place.pop(node, None)

    def move(self, parent: int, name: bytes, to: int, new: bytes) -> None:
        self.remove(to, new)
        node = self._at.pop((parent, name), None)
        if node is not None:
            self._at[to, new], self._place[node] = node, (to, new)


class Passthrough:
    """One method per request, named as the kernel names it; returns the answer's body."""

    def __init__(self, backing: str, owner: Owner | None = None) -> None:
        self.root = os.fsencode(backing)
        self.owner = owner
        """Whose everything seems to be; nobody can change that then."""
        self.remember = 0
        """Seconds for which the kernel may go by what it was told of a name."""
        self.nodes = Nodes(self.root)
        self._open: dict[int, list[int]] = {}
        """The handles of each node: a file that is open outlives its name."""
        self.backs = False
        """Keeps what is written in memory until the file is synced or closed."""
        self._unstored: dict[int, list[tuple[int, bytes]]] = {}
        """Offset and content of what is kept, by the inode number of the file."""

    # -- what answers are made of

    def _attr(self, st: os.stat_result, node: int) -> bytes:
        # Quobyte's root has size 0: that is how its users tell a live mount.
        size = 0 if node == ROOT else st.st_size
        times = (st.st_atime_ns, st.st_mtime_ns, st.st_ctime_ns)
        mode, uid, gid = st.st_mode, st.st_uid, st.st_gid
        if self.owner:
            uid, gid, permissions = self.owner
            mode = stat.S_IFMT(mode) | permissions
        return struct.pack(
            "<6Q10I",
            *(st.st_ino, size, st.st_blocks, *(t // 10**9 for t in times)),
            *(t % 10**9 for t in times),
            *(mode, st.st_nlink, uid, gid, st.st_rdev, st.st_blksize, 0),
        )

    def _entry(self, parent: int, name: bytes) -> bytes:
        st = os.lstat(self.nodes.path(parent, name))
        node = self.nodes.look_up(parent, name, st.st_ino)
        return struct.pack("<4Q2I", node, 0, self.remember, 0, 0, 0) + self._attr(st, node)

    def _made(self, r: Request, name: bytes) -> bytes:
        if not self.owner:
            os.chown(self.nodes.path(r.node, name), r.uid, r.gid, follow_symlinks=False)
        return self._entry(r.node, name)

    def _opened(self, node: int, handle: int) -> bytes:
        self._open.setdefault(node, []).append(handle)
        return struct.pack("<Q2I", handle, 0, 0)

    def _stat(self, node: int) -> os.stat_result:
        handles = self._open.get(node)
        return os.fstat(handles[0]) if handles else os.lstat(self.nodes.path(node))

    @staticmethod
    def _name(body: memoryview | bytes, start: int = 0) -> bytes:
        return bytes(body[start:]).rstrip(b"\0")

    # -- the session

    def init(self, r: Request) -> bytes:
        _, minor, readahead, flags = struct.unpack_from("<4I", r.body)
        head = (7, min(minor, 40), readahead, flags & INIT_FLAGS)
        return struct.pack("<4I2H2I2H7I", *head, 64, 48, MAX_WRITE, 1, MAX_WRITE // 4096, *[0] * 8)

    def forget(self, r: Request) -> None:
        self.nodes.forget(r.node, struct.unpack_from("<Q", r.body)[0])

    def batch_forget(self, r: Request) -> None:
        (count,) = struct.unpack_from("<I", r.body)
        for node, lookups in struct.iter_unpack("<QQ", r.body[8 : 8 + 16 * count]):
            self.nodes.forget(node, lookups)

    # -- names

    def lookup(self, r: Request) -> bytes:
        return self._entry(r.node, self._name(r.body))

    def readlink(self, r: Request) -> bytes:
        return os.readlink(self.nodes.path(r.node))

    def symlink(self, r: Request) -> bytes:
        name, target = self._name(r.body).split(b"\0")
        os.symlink(target, self.nodes.path(r.node, name))
        return self._made(r, name)

    def link(self, r: Request) -> bytes:
        (old,) = struct.unpack_from("<Q", r.body)
        name = self._name(r.body, 8)
        os.link(self.nodes.path(old), self.nodes.path(r.node, name), follow_symlinks=False)
        return self._entry(r.node, name)

    def mknod(self, r: Request) -> bytes:
        mode, device, umask, _ = struct.unpack_from("<4I", r.body)
        name = self._name(r.body, 16)
        os.mknod(self.nodes.path(r.node, name), mode & ~umask, device)
        return self._made(r, name)

    def mkdir(self, r: Request) -> bytes:
        mode, umask = struct.unpack_from("<2I", r.body)
        name = self._name(r.body, 8)
        os.mkdir(self.nodes.path(r.node, name), mode & ~umask)
        return self._made(r, name)

    def unlink(self, r: Request) -> bytes:
        name = self._name(r.body)
        os.unlink(self.nodes.path(r.node, name))
        self.nodes.remove(r.node, name)
        return b""

    def rmdir(self, r: Request) -> bytes:
        name = self._name(r.body)
        os.rmdir(self.nodes.path(r.node, name))
        self.nodes.remove(r.node, name)
        return b""

    def rename(self, r: Request, start: int = 8) -> bytes:
        (to,) = struct.unpack_from("<Q", r.body)
        old, new = self._name(r.body, start).split(b"\0")
        os.rename(self.nodes.path(r.node, old), self.nodes.path(to, new))
        self.nodes.move(r.node, old, to, new)
        return b""

    def rename2(self, r: Request) -> bytes:
        if struct.unpack_from("<I", r.body, 8)[0]:
            raise OSError(errno.EINVAL, "no flags (exchange, no-replace) are supported")
        return self.rename(r, 16)

    # -- attributes

    def getattr(self, r: Request) -> bytes:
        return struct.pack("<Q2I", 0, 0, 0) + self._attr(self._stat(r.node), r.node)

    def setattr(self, r: Request) -> bytes:
        fields = struct.unpack_from("<2I6Q8I", r.body)
        valid, _, handle, size, _, atime, mtime, _, atime_ns, mtime_ns, _, mode, _, uid, gid, _ = (
            fields
        )
        path = self.nodes.path(r.node)
        if self.owner and valid & (1 << 0 | 1 << 1 | 1 << 2):
            raise OSError(errno.EPERM, "owner and permissions are the mount's")
        if valid & 1 << 0:
            os.chmod(path, mode & 0o7777)
        if valid & (1 << 1 | 1 << 2):
            user, group = uid if valid & 1 << 1 else -1, gid if valid & 1 << 2 else -1
            os.chown(path, user, group, follow_symlinks=False)
        if valid & 1 << 3:
            os.truncate(handle if valid & 1 << 6 else path, size)
        if valid & (1 << 4 | 1 << 5):
            st, now = self._stat(r.node), time.time_ns()
            access = atime * 10**9 + atime_ns if valid & 1 << 4 else st.st_atime_ns
            change = mtime * 10**9 + mtime_ns if valid & 1 << 5 else st.st_mtime_ns
            times = now if valid & 1 << 7 else access, now if valid & 1 << 8 else change
            os.utime(path, ns=times, follow_symlinks=False)
        return struct.pack("<Q2I", 0, 0, 0) + self._attr(self._stat(r.node), r.node)

    def statfs(self, r: Request) -> bytes:
        v = os.statvfs(self.root)
        sizes = v.f_blocks, v.f_bfree, v.f_bavail, v.f_files, v.f_ffree
        return struct.pack("<5Q10I", *sizes, v.f_bsize, v.f_namemax, v.f_frsize, *[0] * 7)

    # -- files

    def open(self, r: Request) -> bytes:
        (flags,) = struct.unpack_from("<I", r.body)
        # The kernel did O_DIRECT's work; the backing store may be cached.
        handle = os.open(self.nodes.path(r.node), flags & ~(os.O_DIRECT | os.O_CREAT | os.O_EXCL))
        return self._opened(r.node, handle)

    def create(self, r: Request) -> bytes:
        flags, mode, umask, _ = struct.unpack_from("<4I", r.body)
        name = self._name(r.body, 16)
        path = self.nodes.path(r.node, name)
        handle = os.open(path, flags & ~os.O_DIRECT | os.O_CREAT, mode & ~umask)
        entry = self._made(r, name)
        return entry + self._opened(struct.unpack_from("<Q", entry)[0], handle)

    def read(self, r: Request) -> bytes:
        handle, offset, size = struct.unpack_from("<2QI", r.body)
        found = bytearray(os.pread(handle, size, offset))
        for at, content in self._unstored.get(os.fstat(handle).st_ino, ()):
            start, end = max(at, offset), min(at + len(content), offset + len(found))
            if start < end:
                found[start - offset : end - offset] = content[start - at : end - at]
        return bytes(found)

    def write(self, r: Request) -> bytes:
        handle, offset, size = struct.unpack_from("<2QI", r.body)
        content = bytes(r.body[40 : 40 + size])
        if self.backs:
            self._unstored.setdefault(os.fstat(handle).st_ino, []).append((offset, content))
            return struct.pack("<2I", size, 0)
        return struct.pack("<2I", os.pwrite(handle, content, offset), 0)

    def fallocate(self, r: Request) -> bytes:
        handle, offset, length, mode = struct.unpack_from("<3QI", r.body)
        if libc.fallocate(handle, mode, ctypes.c_long(offset), ctypes.c_long(length)):
            raise OSError(ctypes.get_errno(), "fallocate")
        return b""

    def lseek(self, r: Request) -> bytes:
        handle, offset, whence = struct.unpack_from("<2QI", r.body)
        return struct.pack("<Q", os.lseek(handle, offset, whence))

    def fsync(self, r: Request) -> bytes:
        (handle,) = struct.unpack_from("<Q", r.body)
        self._store(handle)
        os.fdatasync(handle)
        return b""

    def _store(self, handle: int) -> None:
        unstored = self._unstored.pop(os.fstat(handle).st_ino, ())
        if unstored:  # the handle may be a reader's
            with open(f"/proc/self/fd/{handle}", "r+b", buffering=0) as file:
                for offset, content in unstored:
                    os.pwrite(file.fileno(), content, offset)

    def release(self, r: Request) -> bytes:
        (handle,) = struct.unpack_from("<Q", r.body)
        self._store(handle)
        self._open[r.node].remove(handle)
        if not self._open[r.node]:
            del self._open[r.node]
        os.close(handle)
        return b""

    def flush(self, r: Request) -> bytes:
        return b""

    # -- directories

    def opendir(self, r: Request) -> bytes:
        return struct.pack("<Q2I", 0, 0, 0)

    def readdir(self, r: Request) -> bytes:
        _, offset, size = struct.unpack_from("<2QI", r.body)
        path = self.nodes.path(r.node)
        with os.scandir(path) as found:
            entries = sorted((entry.name, entry.inode(), _kind(entry)) for entry in found)
        here = os.stat(path).st_ino  # said of "..", too, for which nobody reads a listing
        entries[:0] = [(name, here, stat.S_IFDIR >> 12) for name in (b".", b"..")]
        out = bytearray()
        for number, (name, inode, kind) in enumerate(entries[offset:], offset + 1):
            entry = struct.pack("<2Q2I", inode, number, len(name), kind) + name
            entry += b"\0" * (-len(entry) % 8)
            if len(out) + len(entry) > size:
                break
            out += entry
        return bytes(out)

    releasedir = fsyncdir = flush
