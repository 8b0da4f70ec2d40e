"""Reads the header of a LUKS image, as far as it tells whether QEMU can open it.

The fields are those of the LUKS1 On-Disk Format Specification; QEMU knows no other version
(qcrypto_block_luks_check_header of its crypto/block-luks.c).
"""

from __future__ import annotations

import struct

from moorline.errors import Refused

MAGIC = b"LUKS\xba\xbe"
HEADER_BYTES = 592
_SECTOR_BYTES = 512
_VERSION_AT, _PAYLOAD_AT = 6, 104


def payload_at(header: bytes, file_bytes: int) -> int:
    """The byte of the file at which the disk begins. Raises Refused.

    *header*: the first :data:`HEADER_BYTES` of a file that has *file_bytes*.
    """
    if len(header) < HEADER_BYTES or not header.startswith(MAGIC):
        raise Refused("it has no LUKS header")
    (version,) = struct.unpack_from(">H", header, _VERSION_AT)
    if version != 1:
        raise Refused(
            f"it is LUKS{version}, and QEMU opens LUKS1 alone",
            hint="qemu-img create -f luks makes one that it opens, cryptsetup luksFormat --type"
            " luks1 as well; then copy what is in it",
        )
    (sectors,) = struct.unpack_from(">I", header, _PAYLOAD_AT)
    begin: int = sectors * _SECTOR_BYTES
    if not HEADER_BYTES <= begin <= file_bytes:
        raise Refused(f"its LUKS header is damaged: its disk would begin at byte {begin}")
    return begin
