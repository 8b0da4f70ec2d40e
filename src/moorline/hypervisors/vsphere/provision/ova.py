"""OVA packages: a tar whose first member, the OVF descriptor, says what the others are.

A package is untrusted. Only plain members are taken; nothing is unpacked, and
nothing is read whole but its small texts.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO
from xml.etree import ElementTree

from moorline.errors import Refused

_BLOCK = 512
_MAX_MEMBERS = 64
_MAX_TEXT_BYTES = 4 << 20
_OVF = "{http://schemas.dmtf.org/ovf/envelope/1}"
_VMDK_FORMAT = re.compile(
    r"https?://www\.vmware\.com/(specifications|interfaces/specifications)/vmdk"
)
_UNITS = re.compile(r"byte(?:\s*\*\s*(2|10)\s*\^\s*(\d{1,2}))?")
_DIGEST = re.compile(r"(SHA1|SHA256|SHA512)\s*\(([^)]+)\)\s*=\s*([0-9a-fA-F]+)")


@dataclass(frozen=True, slots=True)
class Member:
    """A file within the package."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class OvaDisk:
    """The package's one disk."""

    member: Member
    capacity: int
    """The virtual disk's size in bytes, as the descriptor says."""
    digest: tuple[str, str] | None
    """The algorithm and the hexadecimal digest that the manifest has for it."""


def find_disk(file: BinaryIO) -> OvaDisk:
    """Find the disk of the package that *file* is. Raises Refused."""
    members = dict(_members(file))
    descriptors = [name for name in members if name.lower().endswith(".ovf")]
    if len(descriptors) != 1 or next(iter(members)) != descriptors[0]:
        raise Refused("the first file in this OVA is not its one OVF descriptor")
    envelope = _parse(_text(file, members[descriptors[0]]))
    name, size, capacity = _only_disk(envelope)
    if name not in members:
        raise Refused(f"this OVA has no file {name[:80]!r}, which its descriptor names")
    member = members[name]
    if size is not None and size != member.length:
        raise Refused(f"the disk in this OVA has {member.length} bytes, its descriptor says {size}")
    return OvaDisk(member, capacity, _digests(file, members).get(name))


def _members(file: BinaryIO) -> Iterator[tuple[str, Member]]:
    """Walk the tar by its headers.

    tarfile itself would read extended headers whole, however long they claim to
    be. A package has none: DMTF's DSP0243 asks for the plain ustar format.
    """
    names: set[str] = set()
    at = 0
    while True:
        file.seek(at)
        block = file.read(_BLOCK)
        if not block.strip(b"\0"):
            if len(block) < _BLOCK:
                raise Refused("this OVA is cut short")
            return
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError):
            raise Refused("this is no OVA: it is not a plain tar") from None
        if header.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or header.size < 0:
            raise Refused(f"this OVA has a member that is not a plain file: {header.name[:80]!r}")
        if header.name in names or len(names) == _MAX_MEMBERS:
            raise Refused("this OVA has too many members, or one twice")
        names.add(header.name)
        at += _BLOCK
        if file.seek(0, 2) < at + header.size:
            raise Refused("this OVA is cut short")
        yield header.name, Member(at, header.size)
        at += -(-header.size // _BLOCK) * _BLOCK


def _text(file: BinaryIO, member: Member) -> str:
    if member.length > _MAX_TEXT_BYTES:
        raise Refused(f"a description in this OVA has {member.length} bytes")
    file.seek(member.offset)
    try:
        return file.read(member.length).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Refused("a description in this OVA is not UTF-8") from None


class _Builder(ElementTree.TreeBuilder):
    """Builds the tree of a document without a DTD, so without entities of its own."""

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        raise Refused("the OVF descriptor has a document type, which none has")


def _parse(text: str) -> ElementTree.Element:
    parser = ElementTree.XMLParser(target=_Builder())  # noqa: S314 - see _Builder
    try:
        parser.feed(text)
        envelope = parser.close()
    except ElementTree.ParseError as error:
        raise Refused(f"the OVF descriptor is not XML: {error}") from None
    if not isinstance(envelope, ElementTree.Element) or envelope.tag != f"{_OVF}Envelope":
        raise Refused("the OVF descriptor is not an OVF 1 envelope")
    return envelope


def _only_disk(envelope: ElementTree.Element) -> tuple[str, int | None, int]:
    """The name of the disk's file, its length if told, and the disk's capacity."""
    disks = envelope.findall(f"{_OVF}DiskSection/{_OVF}Disk")
    if len(disks) != 1:
        raise Refused(f"this OVA has {len(disks)} disks: only packages with one disk are taken")
    disk = disks[0].attrib
    files = {
        file.get(f"{_OVF}id"): file.attrib
        for file in envelope.findall(f"{_OVF}References/{_OVF}File")
    }
    file = files.get(disk.get(f"{_OVF}fileRef"))
    if file is None:
        raise Refused("the disk of this OVA has no file")
    if file.get(f"{_OVF}compression", "identity") != "identity" or f"{_OVF}chunkSize" in file:
        raise Refused("the disk of this OVA is compressed as a whole, or in chunks")
    if disk.get(f"{_OVF}parentRef"):
        raise Refused("the disk of this OVA is only the difference to another disk")
    if not _VMDK_FORMAT.match(disk.get(f"{_OVF}format", "")):
        raise Refused(f"the disk of this OVA is no VMDK: {disk.get(f'{_OVF}format', '')[:80]!r}")
    name, size = file.get(f"{_OVF}href", ""), file.get(f"{_OVF}size")
    return name, None if size is None else _number(size), _capacity(disk)


def _capacity(disk: Mapping[str, str]) -> int:
    units = disk.get(f"{_OVF}capacityAllocationUnits", "byte")
    found = _UNITS.fullmatch(units.strip())
    if found is None:
        raise Refused(f"this OVA counts its disk in {units[:40]!r}")
    base, exponent = found.groups()
    return _number(disk.get(f"{_OVF}capacity", "")) * (int(base) ** int(exponent) if base else 1)


def _number(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,20}", text):
        raise Refused(f"this OVA has {text[:40]!r} where a number should be")
    return int(text)


def _digests(file: BinaryIO, members: Mapping[str, Member]) -> dict[str, tuple[str, str]]:
    """What the manifest says, by file; nothing if there is none."""
    found: dict[str, tuple[str, str]] = {}
    for name in members:
        if name.lower().endswith(".mf"):
            for line in _text(file, members[name]).splitlines():
                if match := _DIGEST.match(line.strip()):
                    found[match[2]] = (match[1].lower(), match[3].lower())
    return found
