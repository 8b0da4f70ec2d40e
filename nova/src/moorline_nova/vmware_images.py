"""Images that are streams of a disk: how large the disk is, and how it is imported."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPException
from typing import Any

from nova import exception
from nova.virt.vmwareapi import images
from oslo_log import log
from oslo_vmware import rw_handles

LOG = log.getLogger(__name__)
MIB = 1 << 20
_SECTOR = 512
_HEADER = 20
"""Bytes of a VMDK's header up to its capacity, which is the last of them: magic, version and flags
take 4 bytes each, the capacity in sectors 8 (VMware, Virtual Disk Format 5.0)."""
_ANSWER_SECONDS = 300
"""Seconds that a host may take to write the last of an image: vCenter's leases end then."""


def virtual_size(context: Any, image_id: str, *, is_ova: bool) -> int:
    """Bytes of the disk in a stream-optimized image, or in an OVA with such a disk.

    Glance would know it, but Nova keeps that back. No more is read of the image than
    it takes. Raises ImageUnacceptable, and what Glance raises.
    """
    chunks = images.IMAGE_API.download(context, image_id)
    handle = rw_handles.ImageReadHandle(chunks)
    try:
        header = _within_ova(handle) if is_ova else _read(handle)
    except tarfile.TarError as e:
        raise exception.ImageUnacceptable(image_id=image_id, reason=f"no OVA: {e}") from e
    finally:
        getattr(chunks, "close", lambda: None)()
    if len(header) < _HEADER or header[:4] != b"KDMV":
        reason = "it is called stream-optimized, and does not begin as a VMDK"
        raise exception.ImageUnacceptable(image_id=image_id, reason=reason)
    return int.from_bytes(header[12:_HEADER], "little") * _SECTOR


def _read(handle: Any) -> bytes:
    header = b""
    while len(header) < _HEADER:
        chunk = handle.read(_HEADER)
        if not chunk:
            break
        header += chunk
    return header


def _within_ova(handle: Any) -> bytes:
    with _disk_in(handle) as (disk, _):
        return disk.read(_HEADER)


@contextmanager
def _disk_in(handle: Any) -> Iterator[tuple[Any, int]]:
    """The disk that Nova takes from an OVA, and its bytes there. Raises TarError."""
    with tarfile.open(mode="r|", fileobj=handle) as tar:
        name = None
        for member in tar:
            file = tar.extractfile(member)
            if file is None:
                continue
            if member.name.endswith(".ovf"):
                name = _name_in(file.read())
            elif name and member.name.startswith(name):
                yield file, member.size
                return
    raise tarfile.ReadError("there is no disk in it")


def _name_in(description: bytes) -> str:
    try:
        return images.get_vmdk_name_from_ovf(description)
    except (SyntaxError, AttributeError, KeyError) as e:  # bad XML, or parts are missing
        raise tarfile.ReadError(f"its description: {e}") from e


class _Upload(rw_handles.VmdkWriteHandle):  # type: ignore[misc]  # it has no types
    """oslo.vmware's, and it reads the host's answer, which that never does.

    A connection that was cut behind the last piece goes unseen otherwise, and an image of which
    something is missing is taken for whole.
    """

    def close(self) -> None:
        if self.tell() == self._vmdk_size and (problem := self._problem()):
            LOG.error("The image was not taken by %s: %s", self._url, problem)
            self._bytes_written = 0  # for what follows it is incomplete: the lease is aborted
        super().close()

    def _problem(self) -> str:
        try:
            self._conn.timeout = _ANSWER_SECONDS  # urllib3 gives it to its socket
            answer = self._conn.getresponse()
        except (OSError, HTTPException) as e:
            return str(e) or type(e).__name__
        return "" if answer.status in (HTTPStatus.OK, HTTPStatus.CREATED) else answer.reason


def import_stream(
    image_id: str, context: Any, session: Any, name: str, store: str, folder: Any, pool: Any
) -> Any:
    """Import a stream-optimized image as a machine that never runs; return the machine.

    Raises what vCenter and Glance raise.
    """
    size = int(images.IMAGE_API.get(context, image_id)["size"])
    handle = rw_handles.ImageReadHandle(images.IMAGE_API.download(context, image_id))
    return _import(handle, size, session, name, store, folder, pool)


def import_ova(
    image_id: str, context: Any, session: Any, name: str, store: str, folder: Any, pool: Any
) -> Any:
    """Import the disk of an OVA as a machine that never runs; return the machine.

    As Nova does it, but that vCenter is told how large the disk's file is. Nova tells the size of
    the whole archive, and takes the transfer for incomplete then. Raises ImageUnacceptable, and
    what vCenter and Glance raise.
    """
    handle = rw_handles.ImageReadHandle(images.IMAGE_API.download(context, image_id))
    try:
        with _disk_in(handle) as (disk, size):
            return _import(disk, size, session, name, store, folder, pool)
    except tarfile.TarError as e:
        raise exception.ImageUnacceptable(image_id=image_id, reason=f"no OVA: {e}") from e


def _import(
    disk: Any, size: int, session: Any, name: str, store: str, folder: Any, pool: Any
) -> Any:
    spec = images._build_import_spec_for_import_vapp(session, name, store)
    writer = _Upload(session, session._host, session._port, pool, folder, spec, size)
    images.image_transfer(disk, writer)
    return writer.get_imported_vm()


class Import:
    """Nova's session, for one import: the true size goes with it.

    Nova asks for a disk of 1 KiB, which Virtual Volumes refuse.
    """

    def __init__(self, session: Any, size: int) -> None:
        self._session = session
        self._size_kib = size // 1024
        self.sized = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def invoke_api(self, module: Any, method: str, *args: Any, **named: Any) -> Any:
        if method == "ImportVApp":
            for change in named["spec"].configSpec.deviceChange:
                if getattr(change, "fileOperation", None) == "create":
                    change.device.capacityInKB = self._size_kib
                    self.sized = True
        return self._session.invoke_api(module, method, *args, **named)
