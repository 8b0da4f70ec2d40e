"""Reads a qcow2 header, and refuses absurd values.

Layout: https://www.qemu.org/docs/master/interop/qcow2.html; limits: block/qcow2.h
of QEMU. oslo.utils' inspector tells that a file is qcow2 and whether it refers to
other files, not to which; and it lets encryption and absurd values pass. So the
fields are read here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

from moorline.errors import Refused

MAGIC = b"QFI\xfb"
HEADER_BYTES = 64 << 10
"""Bytes to read: QEMU writes the header, its extensions and the backing file's
name one after the other, in a cluster which is rarely larger."""

_V2 = struct.Struct(">4sIQIIQIIQQIIQ")
_V3 = struct.Struct(">QQQII")
_V2_LENGTH, _V3_LENGTH = 72, 104
_DIRTY, _CORRUPT, _DATA_FILE, _COMPRESSION, _WIDE_L2 = (1 << bit for bit in range(5))
_KNOWN = _DIRTY | _COMPRESSION | _WIDE_L2
_BACKING_FORMAT = 0xE2792ACA
_MAX_NAME_BYTES = 1023
_LARGEST_L1 = 32 << 20
_MAX_REFCOUNT_TABLE_BYTES = 8 << 20
_MAX_SNAPSHOTS = 65536
_COMPRESSION_AT, _ZSTD = 104, 1


@dataclass(frozen=True)
class Header:
    """What a qcow2 image refers to. Names are as found: untrusted."""

    version: int
    size: int
    """Bytes that the guest sees."""
    backing: str = ""
    backing_format: str = ""


class _Fields(NamedTuple):
    magic: bytes
    version: int
    backing_at: int
    backing_length: int
    cluster_bits: int
    size: int
    encryption: int
    l1_entries: int
    l1_at: int
    refcounts_at: int
    refcount_clusters: int
    snapshots: int
    snapshots_at: int
    features: int = 0
    compatible: int = 0
    autoclear: int = 0
    refcount_order: int = 4
    length: int = _V2_LENGTH


def parse(data: bytes) -> Header:
    """Parse the first bytes of an image. Raises Refused."""
    fields = _fields(data)
    _check_version(fields)
    _check_sizes(fields)
    _check_tables(fields)
    head = data[: 1 << fields.cluster_bits]
    if fields.features & _COMPRESSION and not _compression_is_known(head, fields):
        raise Refused("the qcow2 image is compressed in an unknown way")
    extensions = _extensions(head, fields)
    return Header(
        version=fields.version,
        size=fields.size,
        backing=_backing(head, fields),
        backing_format=_text(extensions.get(_BACKING_FORMAT, b""), "backing format"),
    )


def _fields(data: bytes) -> _Fields:
    if len(data) < _V2_LENGTH or not data.startswith(MAGIC):
        raise Refused("the image is declared qcow2, but has no qcow2 header")
    fields = _Fields(*_V2.unpack_from(data))
    if fields.version == 2:
        return fields
    if fields.version != 3:
        _absurd(f"its version is {fields.version}")
    if len(data) < _V3_LENGTH:
        _absurd("it is cut off")
    return _Fields(*_V2.unpack_from(data), *_V3.unpack_from(data, _V2_LENGTH))


def _check_version(fields: _Fields) -> None:
    if fields.encryption:
        raise Refused(
            "the qcow2 image is encrypted by QEMU itself, which is not supported",
            hint="let the storage or the guest encrypt, or convert the image",
        )
    if fields.features & _CORRUPT:
        raise Refused("the qcow2 image is marked as corrupt", hint="see qemu-img check -r")
    if fields.features & _DATA_FILE:
        # QEMU opens it by the name in the header, from its own working directory; libvirt
        # cannot be told another (before 10.10), and gives QEMU's user no access to it.
        raise Refused(
            "the qcow2 image keeps its data in another file, which is not supported",
            hint="qemu-img convert -O qcow2 makes one image of the two",
        )
    if fields.features & ~_KNOWN:
        raise Refused(f"the qcow2 image needs unknown features ({fields.features & ~_KNOWN:#x})")


def _check_sizes(fields: _Fields) -> None:
    if not 9 <= fields.cluster_bits <= 21:
        _absurd(f"its clusters have 2^{fields.cluster_bits} bytes")
    cluster = 1 << fields.cluster_bits
    least = _V2_LENGTH if fields.version == 2 else _V3_LENGTH
    if not least <= fields.length <= cluster or fields.length % 8:
        _absurd(f"its header has {fields.length} bytes")
    if fields.refcount_order > 6:
        _absurd(f"its reference counts have 2^{fields.refcount_order} bits")
    entry = 16 if fields.features & _WIDE_L2 else 8
    covered = fields.l1_entries * (cluster // entry) * cluster
    if fields.l1_entries * 8 > _LARGEST_L1 or fields.size > min(covered, 1 << 63):
        _absurd(f"its size of {fields.size} bytes does not fit its tables")


def _check_tables(fields: _Fields) -> None:
    cluster = 1 << fields.cluster_bits
    if fields.refcount_clusters * cluster > _MAX_REFCOUNT_TABLE_BYTES:
        _absurd(f"its reference counts need {fields.refcount_clusters} clusters")
    if fields.snapshots > _MAX_SNAPSHOTS:
        _absurd(f"it has {fields.snapshots} snapshots")
    for at in (fields.l1_at, fields.refcounts_at, fields.snapshots_at):
        if at % cluster or at >= 1 << 63:
            _absurd(f"a table is at {at:#x}")
    if not fields.refcounts_at or not fields.refcount_clusters:
        _absurd("it has no reference counts")


def _compression_is_known(head: bytes, fields: _Fields) -> bool:
    there = min(fields.length, len(head)) > _COMPRESSION_AT
    return there and head[_COMPRESSION_AT] <= _ZSTD


def _extensions(head: bytes, fields: _Fields) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = fields.length
    end = min(fields.backing_at or len(head), len(head))
    while at + 8 <= end:
        kind, length = struct.unpack_from(">II", head, at)
        if not kind:
            break
        if at + 8 + length > end:
            _absurd("a header extension is cut off")
        if kind in found:
            _absurd("a header extension is there twice")
        found[kind] = head[at + 8 : at + 8 + length]
        at += 8 + (length + 7) // 8 * 8
    return found


def _backing(head: bytes, fields: _Fields) -> str:
    if not fields.backing_at:
        return ""
    end = fields.backing_at + fields.backing_length
    if not 0 < fields.backing_length <= _MAX_NAME_BYTES or end > len(head):
        _absurd("the name of its backing file is out of bounds")
    return _text(head[fields.backing_at : end], "backing file")


def _text(raw: bytes, what: str) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = "\0"
    if not text.isprintable():
        raise Refused(f"the qcow2 image names a {what} with characters that do not print")
    return text


def _absurd(why: str) -> NoReturn:
    raise Refused(f"the qcow2 header is not sound: {why}")
