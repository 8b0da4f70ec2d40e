"""VMDK streams: reads their header, and checks every byte that passes.

The layout is that of VMware's "Virtual Disk Format 5.0". An image is untrusted:
what it claims is compared with what it has, nothing it names is opened, and no
buffer grows with a number that it bears.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from moorline.errors import Refused
from moorline.hypervisors.vsphere.provision.disk_sizes import MAX_DISK_BYTES, MIB

SECTOR = 512
MAGIC = b"KDMV"

_HEADER = struct.Struct("<4sIIQQQQIQQQB4sH")
_NEWLINES = b"\n \r\n"  # a transfer in text mode would have changed them
_COMPRESSED, _MARKERS = 1 << 16, 1 << 17
_DEFLATE = 1
_AT_END = 2**64 - 1
_MAX_GRAIN_BYTES = 1 << 20
_MAX_DESCRIPTOR_BYTES = 64 << 10
_PIECE = 64 << 10
_MARKER = struct.Struct("<QII")
_END, _GRAIN_TABLE, _DIRECTORY, _FOOTER = range(4)
_MAX_METADATA_BYTES = 16 << 20
"""Bytes; the grain directory of the largest disk has 8 MiB."""
_EXTENT = re.compile(r'(RW|RDONLY|NOACCESS)\s+([0-9]{1,20})\s+(\w+)(?:\s+"([^"]*)")?(.*)')

Read = Callable[[int], bytes]
"""Returns as many bytes as are asked for, fewer only at the end."""


@dataclass(frozen=True, slots=True)
class Header:
    """What the first sector says."""

    capacity: int
    """The virtual disk's size in bytes."""
    grain: int
    """Bytes of the disk that are stored together."""
    stream: bool
    """It is stream-optimised: compressed grains, one after the other."""
    descriptor: tuple[int, int]
    """Where the text that describes the disk is, and how long: bytes."""
    data: int
    """Where the grains of a stream begin."""
    directory: int | None
    """Where the tables of a stream's grains begin; None: they come at its end."""

    @property
    def grains(self) -> int:
        """How many grains the disk has at most."""
        return -(-self.capacity // self.grain)


def parse(sector: bytes) -> Header:
    """Read a sparse VMDK's first sector. Raises Refused."""
    if sector.startswith(b"# Disk DescriptorFile"):
        raise Refused(
            "this VMDK is only the description of a disk that is in other files",
            hint=CONVERT,
        )
    if len(sector) < SECTOR or not sector.startswith(MAGIC):
        raise Refused("this is not a sparse VMDK", hint=CONVERT)
    (
        _,
        version,
        flags,
        capacity,
        grain,
        at,
        length,
        _,
        _,
        directory,
        data,
        _,
        newlines,
        packing,
    ) = _HEADER.unpack_from(sector)
    if version not in (1, 2, 3):
        raise Refused(f"VMDK version {version} is not known")
    if newlines != _NEWLINES:
        raise Refused("this VMDK was damaged by a transfer as text")
    if not 0 < capacity <= MAX_DISK_BYTES // SECTOR:
        raise Refused(f"this VMDK claims a disk of {capacity} sectors")
    if not 8 <= grain <= _MAX_GRAIN_BYTES // SECTOR or grain & (grain - 1):
        raise Refused(f"this VMDK claims grains of {grain} sectors")
    compressed = bool(flags & _COMPRESSED)
    if packing != (_DEFLATE if compressed else 0):
        raise Refused(f"this VMDK names the compression {packing}, which does not fit its flags")
    if not 0 < length <= _MAX_DESCRIPTOR_BYTES // SECTOR or not 0 < at < _MAX_DESCRIPTOR_BYTES:
        raise Refused("this VMDK has no description within it")
    stream = compressed and bool(flags & _MARKERS)
    return Header(
        capacity=capacity * SECTOR,
        grain=grain * SECTOR,
        stream=stream,
        descriptor=(at * SECTOR, length * SECTOR),
        data=data * SECTOR,
        directory=None if directory == _AT_END else directory * SECTOR,
    )


def _check_places(header: Header) -> None:
    """Raise Refused unless description, tables and grains follow each other."""
    end = sum(header.descriptor)
    first = end if header.directory is None else header.directory
    # Two sets of tables, an entry of 4 bytes for each grain, and what rounds them up.
    most = end + 2 * 5 * header.grains + 4 * _MAX_GRAIN_BYTES
    if not end <= first <= header.data <= most:
        raise Refused("the grains of this VMDK begin where none can")


def check_descriptor(text: bytes, header: Header) -> None:
    """Raise Refused if the description names anything but the disk itself.

    A description can name any file of the host as an extent or as the parent
    (CVE-2022-47951).
    """
    try:
        lines = [line.strip() for line in text.rstrip(b"\0").decode().splitlines()]
    except UnicodeDecodeError:
        raise Refused("the description of this VMDK is not text") from None
    named = {
        key.strip().lower(): value.strip().strip('"')
        for key, found, value in (line.partition("=") for line in lines)
        if found
    }
    kind = "streamOptimized" if header.stream else "monolithicSparse"
    if named.get("createtype") != kind:
        raise Refused(
            f"this VMDK describes itself as {named.get('createtype', '')[:40]!r}, and is {kind}"
        )
    if named.get("parentcid", "ffffffff").lower() != "ffffffff" or "parentfilenamehint" in named:
        raise Refused("this VMDK is only the difference to another disk")
    extents = [found for line in lines if (found := _EXTENT.match(line))]
    if len(extents) != 1:
        raise Refused(f"this VMDK consists of {len(extents)} extents, not of one")
    _, sectors, type, name, rest = extents[0].groups()
    if type != "SPARSE" or rest.strip() or not name or set("/\\:") & set(name) or name == "..":
        raise Refused("the extent of this VMDK is not within itself")
    if int(sectors) * SECTOR != header.capacity:
        raise Refused(
            f"this VMDK's header says {header.capacity} bytes,"
            f" its description {int(sectors) * SECTOR}"
        )


def checked(read: Read, length: int, *, capacity: int = 0) -> Iterator[bytes]:
    """Yield a stream-optimised VMDK of *length* bytes in pieces, each once it was found good.

    Every grain is inflated, into at most a grain's size. Raises Refused at the
    first error; the last piece is yielded only if all was good.

    *capacity*: what the disk shall have instead, in bytes: its own, rounded up
    to a whole MiB. The header, its copy at the end and the description are
    changed in passing, and nothing else: a table of grains covers at least
    2 MiB, so none is missing, and what has no grain is zero.
    """
    source = _Source(read, length)
    first = source.take(SECTOR)
    header = parse(first)
    if not header.stream:
        raise Refused("this VMDK is not stream-optimised", hint=CONVERT)
    _check_places(header)
    at, long = header.descriptor
    between = source.take(at - SECTOR)
    text = source.take(long)
    check_descriptor(text, header)
    grown = Grown(header, capacity or header.capacity)
    yield grown.header(first) + between + grown.descriptor(text)
    tables = _Tables(header)
    while piece := source.take(min(_PIECE, header.data - source.at)):
        tables.look(piece, source.at - len(piece))
        yield piece
    yield from _grains(source, header, tables, grown)


@dataclass(frozen=True, slots=True)
class Grown:
    """Writes another capacity where a stream tells its own."""

    known: Header
    capacity: int

    def __post_init__(self) -> None:
        if not 0 <= self.capacity - self.known.capacity < MIB:
            raise ValueError("a stream is rounded up to a whole MiB, nothing else")

    def header(self, sector: bytes) -> bytes:
        """The header, or its copy at the end."""
        return sector[:12] + struct.pack("<Q", self.capacity // SECTOR) + sector[20:]

    def descriptor(self, text: bytes) -> bytes:
        """The description; as long as it was. Raises Refused if it has no room."""
        if self.capacity == self.known.capacity:
            return text
        lines = text.rstrip(b"\0").splitlines(keepends=True)
        old, new = (b"%d" % (size // SECTOR) for size in (self.known.capacity, self.capacity))
        grown = b"".join(
            line.replace(old, new, 1) if _EXTENT.match(line.decode().strip()) else line
            for line in lines
        )
        if len(grown) > len(text):
            raise Refused("the description of this VMDK has no room for a larger number")
        return grown.ljust(len(text), b"\0")


class _Tables:
    """Counts the grains that the tables in a stream's head speak of.

    qemu-img writes such streams. They end without a word, so the count tells
    whether they are whole.
    """

    def __init__(self, header: Header) -> None:
        self.grains = 0
        self._start = header.data
        if header.directory is not None:
            tables = -(-header.grains // 512)
            self._start = header.directory + -(-tables * 4 // SECTOR) * SECTOR

    def look(self, piece: bytes, at: int) -> None:
        entries = memoryview(piece)[max(0, self._start - at) :].cast("I")
        self.grains += len(entries) - list(entries).count(0)


def _grains(source: _Source, header: Header, tables: _Tables, grown: Grown) -> Iterator[bytes]:
    seen, whole = 0, False
    last = b""
    while source.left or header.directory is None:
        sector = source.take(SECTOR)
        place, size, type = _MARKER.unpack_from(sector)
        if size:
            seen += 1
            if seen > header.grains:
                raise Refused("this VMDK has more grains than its disk")
            data = sector + source.take(_padded(_GRAIN_HEAD + size, header) - SECTOR)
            plain = _check_grain(data[_GRAIN_HEAD : _GRAIN_HEAD + size], place, header)
            if plain < header.grain and grown.capacity != header.capacity:
                raise Refused(
                    "this VMDK cannot be rounded up: its last grain is a short one",
                    hint="make it larger before it is converted: qemu-img resize",
                )
            yield data
        elif type == _END:
            last = sector + source.rest()
            break
        elif type in (_GRAIN_TABLE, _DIRECTORY, _FOOTER) and place * SECTOR <= _MAX_METADATA_BYTES:
            data = source.take(place * SECTOR)
            if type == _FOOTER:
                whole = _is_footer(data, header)
                data = grown.header(data)
            yield sector + data
        else:
            raise Refused(f"this VMDK has a marker that is not known ({type})")
    if not (whole if header.directory is None else seen == tables.grains):
        raise Refused("this VMDK is cut short: grains are missing at its end")
    yield last


def _is_footer(data: bytes, header: Header) -> bool:
    """Whether *data* ends a stream: the header again, with the tables' place in it."""
    footer = parse(data[:SECTOR])
    if footer.directory is None or replace(footer, directory=None) != header:
        raise Refused("the footer of this VMDK contradicts its header")
    return True


_GRAIN_HEAD = 12


def _padded(size: int, header: Header) -> int:
    if size > 2 * header.grain:
        raise Refused(f"a grain of this VMDK claims {size} bytes")
    return -(-size // SECTOR) * SECTOR


def _check_grain(data: bytes, place: int, header: Header) -> int:
    """Check that *data* is a grain of the disk; return how many bytes it holds."""
    start = place * SECTOR
    if start % header.grain or start >= header.capacity:
        raise Refused(f"a grain of this VMDK lies at sector {place}, where none can be")
    inflate = zlib.decompressobj()
    try:
        plain = inflate.decompress(data, header.grain + 1)
    except zlib.error:
        raise Refused(f"the grain at sector {place} of this VMDK is damaged") from None
    if not 0 < len(plain) <= header.grain or not inflate.eof:
        raise Refused(f"the grain at sector {place} of this VMDK does not hold one grain")
    return len(plain)


class _Source:
    """Bytes that must be there."""

    def __init__(self, read: Read, length: int) -> None:
        self._read = read
        self.left = length
        self.at = 0

    def take(self, count: int) -> bytes:
        data = self._read(count) if count <= self.left else b""
        if len(data) != count:
            raise Refused("this VMDK is cut short")
        self.left -= count
        self.at += count
        return data

    def rest(self) -> bytes:
        """What comes after the end: padding."""
        if self.left > _MAX_METADATA_BYTES or (rest := self.take(self.left)).strip(b"\0"):
            raise Refused("this VMDK goes on after its end")
        return rest


CONVERT = "convert it: qemu-img convert -f FORMAT -O vmdk -o subformat=streamOptimized IN OUT"
