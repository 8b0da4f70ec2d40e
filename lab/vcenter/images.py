"""Small images as VMware's own tools write them: stream-optimised, with a footer; and OVAs."""

from __future__ import annotations

import hashlib
import io
import struct
import tarfile
import zlib
from collections.abc import Mapping, Sequence

SECTOR = 512
GRAIN = 128 * SECTOR
_AT_END = 2**64 - 1


def stream(
    capacity: int,
    grains: Mapping[int, bytes] | None = None,
    *,
    descriptor: str | None = None,
    header: Mapping[str, int] | None = None,
) -> bytes:
    """A disk of *capacity* bytes; *grains*: what is in it, by number.

    *descriptor* and *header* (fields by name) put something else in their place.
    """
    sectors = capacity // SECTOR
    text = (descriptor or describe(sectors)).encode().ljust(20 * SECTOR, b"\0")
    out = io.BytesIO()
    out.write(_header(sectors, _AT_END, header))
    out.write(text)
    out.write(bytes(GRAIN - out.tell()))
    places: dict[int, int] = {}
    for number, data in sorted((grains or {}).items()):
        places[number] = out.tell() // SECTOR
        packed = zlib.compress(data.ljust(GRAIN, b"\0"))
        _pad(out, struct.pack("<QI", number * 128, len(packed)) + packed)
    _tables(out, places, -(-sectors // 128), header)
    return out.getvalue()


def with_grain(disk: bytes, packed: bytes) -> bytes:
    """*disk* with one more grain at its beginning, which holds *packed*."""
    grain = struct.pack("<QI", 0, len(packed)) + packed
    return disk[:GRAIN] + grain + bytes(-len(grain) % SECTOR) + disk[GRAIN:]


def describe(sectors: int, *, kind: str = "streamOptimized", extent: str | None = None) -> str:
    """The text in it."""
    extent = extent or f'RW {sectors} SPARSE "disk.vmdk"'
    return (
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n"
        f'createType="{kind}"\n\n# Extent description\n{extent}\n\n'
        '#DDB\nddb.adapterType = "lsilogic"\n'
    )


def ova(
    disk: bytes,
    *,
    capacity: int,
    ovf: str | None = None,
    name: str = "disk.vmdk",
    more: Sequence[tuple[str, bytes]] = (),
    manifest: bool = True,
) -> bytes:
    """A package around *disk*."""
    text = (ovf or envelope(name, len(disk), capacity)).encode(errors="surrogateescape")
    members = [("box.ovf", text)]
    if manifest:
        digests = [
            f"SHA256({n})= {hashlib.sha256(d).hexdigest()}\n" for n, d in (*members, (name, disk))
        ]
        members.append(("box.mf", "".join(digests).encode()))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for member, data in [*members, (name, disk), *more]:
            info = tarfile.TarInfo(member)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def envelope(name: str, size: int, capacity: int, *, disk: str = "", file: str = "") -> str:
    """An OVF descriptor with one disk; *disk* and *file*: more attributes of theirs."""
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1"
          xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1">
  <References><File ovf:href="{name}" ovf:id="file1" ovf:size="{size}" {file}/></References>
  <DiskSection><Info>disks</Info>
    <Disk ovf:capacity="{capacity}" ovf:diskId="vmdisk1" ovf:fileRef="file1" {disk}
      ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>
  </DiskSection>
  <VirtualSystem ovf:id="box"><Info>one</Info></VirtualSystem>
</Envelope>
"""


def _header(sectors: int, directory: int, other: Mapping[str, int] | None) -> bytes:
    fields = {
        "version": 3,
        "flags": 0x30001,
        "capacity": sectors,
        "grain": 128,
        "descriptor_at": 1,
        "descriptor_length": 20,
        "entries": 512,
        "redundant": 0,
        "directory": directory,
        "overhead": 128,
        "unclean": 0,
        "compression": 1,
        **(other or {}),
    }
    *numbers, compression = fields.values()
    head = struct.pack("<4sIIQQQQIQQQB4sH", b"KDMV", *numbers, b"\n \r\n", compression)
    return head.ljust(SECTOR, b"\0")


def _tables(
    out: io.BytesIO, places: Mapping[int, int], grains: int, header: Mapping[str, int] | None
) -> None:
    tables = []
    for first in range(0, grains, 512):
        entries = [places.get(n, 0) for n in range(first, first + 512)]
        _pad(out, struct.pack("<QII", 4, 0, 1))
        tables.append(out.tell() // SECTOR)
        out.write(struct.pack("<512I", *entries))
    directory = struct.pack(f"<{len(tables)}I", *tables)
    directory += bytes(-len(directory) % SECTOR)
    _pad(out, struct.pack("<QII", len(directory) // SECTOR, 0, 2))
    at = out.tell() // SECTOR
    out.write(directory)
    _pad(out, struct.pack("<QII", 1, 0, 3))
    out.write(_header((header or {}).get("capacity", 0) or _sectors(out), at, header))
    out.write(bytes(SECTOR))


def _sectors(out: io.BytesIO) -> int:
    return int(struct.unpack_from("<Q", out.getvalue(), 12)[0])


def _pad(out: io.BytesIO, data: bytes) -> None:
    out.write(data + bytes(-len(data) % SECTOR))
