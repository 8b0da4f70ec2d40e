"""Makes LUKS1 images as QEMU does, but with a key that is derived at once: `qemu-img create` takes
half a minute for that on a busy machine (it measures the machine).

By the LUKS1 On-Disk Format Specification; QEMU itself, which opens them, says whether they are.
"""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

SECTOR = 512
PAYLOAD = 4040 * SECTOR
_STRIPES, _ITERATIONS, _KEY_BYTES = 4000, 1000, 64
_MATERIAL_AT = 8
"""The sector at which the first key slot's material begins."""


def luks_image(path: Path, key: bytes, disk_bytes: int, *, version: int = 1) -> Path:
    """Make one whose disk is full of holes, which are garbage to who deciphers them."""
    master, salt, digest_salt = os.urandom(_KEY_BYTES), os.urandom(32), os.urandom(32)
    split = _split(master)
    derived = hashlib.pbkdf2_hmac("sha256", key, salt, _ITERATIONS, _KEY_BYTES)
    material = b"".join(
        _xts(derived, at // SECTOR, split[at : at + SECTOR]) for at in range(0, len(split), SECTOR)
    )
    digest = hashlib.pbkdf2_hmac("sha256", master, digest_salt, _ITERATIONS, 20)
    header = struct.pack(
        ">6sH32s32s32sII20s32sI40s",
        *(b"LUKS\xba\xbe", version, b"aes", b"xts-plain64", b"sha256"),
        *(PAYLOAD // SECTOR, _KEY_BYTES, digest, digest_salt, _ITERATIONS),
        b"6f1d7c1a-0000-4000-8000-00000000000a",
    )
    slot_sectors = 504
    for slot in range(8):
        at = _MATERIAL_AT + slot * slot_sectors
        used = (0x00AC71F3, _ITERATIONS, salt) if slot == 0 else (0x0000DEAD, 0, b"")
        header += struct.pack(">II32sII", *used, at, _STRIPES)
    with path.open("wb") as file:
        file.write(header)
        file.seek(_MATERIAL_AT * SECTOR)
        file.write(material)
        file.truncate(PAYLOAD + disk_bytes)
    return path


def _split(master: bytes) -> bytes:
    """The anti-forensic splitter of the specification."""
    last = bytes(len(master))
    stripes = []
    for _ in range(_STRIPES - 1):
        stripe = os.urandom(len(master))
        stripes.append(stripe)
        last = _diffused(_xored(last, stripe))
    return b"".join([*stripes, _xored(last, master)])


def _diffused(block: bytes) -> bytes:
    size = hashlib.sha256().digest_size
    parts = (block[at : at + size] for at in range(0, len(block), size))
    numbered = (struct.pack(">I", number) + part for number, part in enumerate(parts))
    return b"".join(hashlib.sha256(each).digest() for each in numbered)


def _xored(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


def _xts(key: bytes, sector: int, data: bytes) -> bytes:
    cipher = Cipher(algorithms.AES(key), modes.XTS(sector.to_bytes(16, "little"))).encryptor()
    return cipher.update(data) + cipher.finalize()
