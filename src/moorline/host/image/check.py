"""Checks whether a guest may have an image: where it lies, what it is, what it refers to.

Runs in a child that can be killed: every call here may hang. The answer holds for
now: whoever can write to the share can change the image afterwards.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any, NoReturn

from oslo_utils.imageutils import format_inspector

from moorline.errors import Refused
from moorline.host.image import luks, ploop, qcow2
from moorline.host.image.files import MAX_CHAIN_FILES

_CONTAINERS = ["qcow2", "vhd", "vmdk", "vdi", "qed"]
"""Formats that hold a disk. A raw disk that a guest partitioned or encrypted
looks like gpt, iso or luks to oslo.utils; it is still a raw disk."""
_VHDX = b"vhdxfile"
"""The first bytes of a VHDX file, the only format of which more than the first chunk must be
read: bytes 192 to 256 Ki."""
_INSPECTED_BYTES = 1 << 20
"""Bytes after which all inspectors have decided. Some ask for the end of the file, which may
be terabytes away; what they look for there does not decide the format."""
_CHUNK = 64 << 10

Parts = tuple[str, ...]


def check_image(share: str, name: str, format: str) -> list[dict[str, Any]]:
    """The facts of each file that was checked (see :meth:`moorline.ports.Host.image`).

    Raises Refused or OSError unless all is well.
    """
    with _opened(share, os.O_PATH | os.O_DIRECTORY) as root:
        if format == "ploop":
            return _check_ploop(root, share, _parts(share, name))
        return _check_chain(root, share, _parts(share, name), format)


def _check_chain(root: int, share: str, parts: Parts, format: str) -> list[dict[str, Any]]:
    """Check the image and each backing file, down to the last; QEMU is given exactly these."""
    files: list[dict[str, Any]] = []
    seen: set[tuple[int, int]] = set()
    above: Parts = ()
    while parts:
        with _naming_what_it_backs(above, parts), _image(root, share, parts) as (file, st):
            if (st.st_dev, st.st_ino) in seen:
                raise Refused(f"the backing chain comes back to {_name(parts)}")
            if len(seen) == MAX_CHAIN_FILES:
                raise Refused(f"the backing chain has more than {MAX_CHAIN_FILES} files")
            seen.add((st.st_dev, st.st_ino))
            _check_format(file, parts, format)
            files.append(_facts(file, st, share, parts, format))
            above = parts
            parts, format = _backing(file, share, parts) if format == "qcow2" else ((), "")
    return files


@contextmanager
def _naming_what_it_backs(above: Parts, parts: Parts) -> Iterator[None]:
    """Add to errors about *parts* that it is the backing file of *above*, if it is one."""
    try:
        yield
    except Refused as e:
        if not above:
            raise
        raise Refused(f"the backing file of {_name(above)}: {e.message}", hint=e.hint) from e
    except OSError as e:
        if not above:
            raise
        text = f"its backing file {_name(parts)}: {e.strerror}"
        raise OSError(e.errno, text, _name(parts)) from e


def _facts(file: int, st: os.stat_result, share: str, parts: Parts, format: str) -> dict[str, Any]:
    return {
        "path": "/".join([share.rstrip("/"), *parts]),
        "format": format,
        "mount": _mount(file),
        "device": st.st_dev,
        "inode": st.st_ino,
        "names": st.st_nlink,
        "changed": max(st.st_mtime, st.st_ctime),
    }


def _check_format(file: int, parts: Parts, declared: str) -> None:
    if declared == "luks":
        _check_luks(file, parts)
        return
    found = _detect(file)
    if declared == "raw" and found != {"raw"}:
        raise Refused(
            f"{_name(parts)} is declared raw, but begins as {' and '.join(sorted(found))}",
            hint="declare the format that it has, or convert it with qemu-img convert -f",
        )
    if declared != "raw" and found != {declared}:
        raise Refused(
            f"{_name(parts)} is declared {declared}, but begins as {' and '.join(sorted(found))}"
        )


def _check_luks(file: int, parts: Parts) -> None:
    """What is inside is raw: there is no chain, and nothing of it is looked at."""
    try:
        luks.payload_at(os.pread(file, luks.HEADER_BYTES, 0), os.lseek(file, 0, os.SEEK_END))
    except Refused as e:
        raise Refused(f"{_name(parts)} is declared luks: {e.message}", hint=e.hint) from e


def _detect(file: int) -> set[str]:
    with io.BufferedReader(io.FileIO(file, closefd=False), _CHUNK) as source:
        head = source.peek(len(_VHDX))[: len(_VHDX)]
        also = ["vhdx"] if _VHDX.startswith(head) else []  # a short read may be all or half of it
        formats = ["raw", *_CONTAINERS, *also]
        stream = format_inspector.InspectWrapper(source, allowed_formats=formats)
        left = _INSPECTED_BYTES
        while left > 0 and stream.formats is None and (chunk := stream.read(min(left, _CHUNK))):
            left -= len(chunk)
        stream.close()
        return {str(inspector) for inspector in stream.formats or ()}


def _backing(file: int, share: str, parts: Parts) -> tuple[Parts, str]:
    """The backing file of a qcow2 image and its declared format; no parts: it has none."""
    try:
        header = qcow2.parse(os.pread(file, qcow2.HEADER_BYTES, 0))
    except Refused as e:
        raise Refused(f"{_name(parts)}: {e.message}", hint=e.hint) from e
    if not header.backing:
        return (), ""
    if header.backing_format not in ("raw", "qcow2"):
        raise Refused(
            f"{_name(parts)} has a backing file of "
            + (f"the format {header.backing_format!r}" if header.backing_format else "no format"),
            hint="it is never probed; declare it with qemu-img rebase -u -F",
        )
    return _resolve(share, parts, header.backing, "has the backing file"), header.backing_format


def _resolve(share: str, image: Parts, name: str, has: str) -> Parts:
    """The path beneath the share of *name*, which *image* refers to."""
    named = f"{_name(image)} {has} {name!r}"
    if ":" in name.partition("/")[0]:
        # QEMU takes "json:{…}", "nbd://…" and the like for protocols.
        raise Refused(f"{named}, which is not a plain file name")
    path = PurePosixPath(name)
    if ".." in path.parts:
        # The kernel follows a symbolic link before it goes up by "..". Shortening "link/.." in the
        # text would lead to another file than the one that is opened.
        raise Refused(
            f"{named}, which goes up with '..': it may be outside of {share}",
            hint="put it beside the image, or name it by its whole path: qemu-img rebase -u -b",
        )
    try:
        parts = path.relative_to(share).parts if path.is_absolute() else (*image[:-1], *path.parts)
    except ValueError:
        raise Refused(f"{named}, which is outside of {share}") from None
    if parts in ((), image[:-1]):
        raise Refused(f"{named}, which is not the name of a file")
    return parts


def _parts(share: str, name: str) -> Parts:
    parts = tuple(name.split("/"))
    if not name.isprintable() or {"", ".", ".."} & set(parts):
        raise Refused(f"{name!r} is not the name of a file in {share}")
    return parts


def _name(parts: Parts) -> str:
    return "/".join(parts)


@contextmanager
def _image(root: int, share: str, parts: Parts) -> Iterator[tuple[int, os.stat_result]]:
    """Open a regular file for reading; look at its type before it is opened."""
    with _walked(root, share, parts) as (place, st):
        if not stat.S_ISREG(st.st_mode):
            raise Refused(f"{_name(parts)} is {_type(st)}, not a regular file")
        with _opened(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_NONBLOCK) as file:
            yield file, st


def _check_ploop(root: int, share: str, parts: Parts) -> list[dict[str, Any]]:
    """Check that the files of the descriptor lie in its directory and have no other format."""
    with _walked(root, share, parts) as (_, st):
        if not stat.S_ISDIR(st.st_mode):
            raise Refused(f"{_name(parts)} is {_type(st)}, not a directory")
    descriptor = (*parts, ploop.NAME)
    with _image(root, share, descriptor) as (file, _):
        names = ploop.files(os.pread(file, ploop.MAX_DESCRIPTOR_BYTES + 1, 0))
    files = []
    for name in names:
        delta = _resolve(share, descriptor, name, "names the file")
        if delta[: len(parts)] != parts:
            raise Refused(f"{_name(descriptor)} names the file {name!r}, which is outside of it")
        with _image(root, share, delta) as (file, st):
            # oslo.utils does not know ploop's own header.
            _check_format(file, delta, "raw")
            files.append(_facts(file, st, share, delta, "raw"))
    return files


@contextmanager
def _walked(root: int, share: str, parts: Parts) -> Iterator[tuple[int, os.stat_result]]:
    """Go down from *root* by descriptor, through no symlink and into no other mount.

    No part is "..", so the file cannot lie outside, even if somebody moves directories
    meanwhile. A bind mount has the device of its source, so mounts are told apart by the
    mount's own id.
    """
    device, mount = os.fstat(root).st_dev, _mount(root)
    place = os.dup(root)
    try:
        for depth, part in enumerate(parts, 1):
            place = _step(place, part, parts[:depth], share)
            st = os.fstat(place)
            if stat.S_ISLNK(st.st_mode):
                target = os.readlink("", dir_fd=place)
                raise Refused(
                    f"{_name(parts[:depth])} is a symbolic link to {target!r}",
                    hint="name the file itself: links are not followed, as they can be turned",
                )
            if (st.st_dev, _mount(place)) != (device, mount):
                raise Refused(f"{_name(parts[:depth])} is on another file system than {share}")
        yield place, st
    finally:
        os.close(place)


def _mount(file: int) -> int:
    """The id of the mount that *file* is on, as the mount table has it. Asks no file system."""
    with open(f"/proc/self/fdinfo/{file}") as facts:  # noqa: PTH123 - it is not a regular file
        return next(int(line.split()[1]) for line in facts if line.startswith("mnt_id:"))


def _step(place: int, part: str, sofar: Parts, share: str) -> int:
    try:
        below = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place)
    except (FileNotFoundError, NotADirectoryError):
        raise Refused(f"there is no file {_name(sofar)} in {share}") from None
    except OSError as e:
        _rename(e, _name(sofar))
    os.close(place)
    return below


def _rename(error: OSError, name: str) -> NoReturn:
    raise OSError(error.errno, error.strerror, name) from error


def _type(st: os.stat_result) -> str:
    kinds = {
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a character device",
        stat.S_IFBLK: "a block device",
        stat.S_IFREG: "a regular file",
    }
    return kinds[stat.S_IFMT(st.st_mode)]


@contextmanager
def _opened(path: str, flags: int) -> Iterator[int]:
    file = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield file
    finally:
        os.close(file)
