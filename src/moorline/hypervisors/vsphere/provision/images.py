"""The image that a guest's first disk is made of: a VMDK, or an OVA with one."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from moorline.errors import Failed, Refused
from moorline.hypervisors.vsphere.provision import ova, vmdk


@dataclass(frozen=True, slots=True)
class Image:
    """An image whose headers were checked. Its grains are checked while they are uploaded."""

    path: Path
    offset: int
    length: int
    """Bytes of the VMDK stream within the file."""
    capacity: int
    """The virtual disk's size in bytes. It has nothing to do with the file's."""
    digest: tuple[str, str] | None = None
    """The algorithm and the hexadecimal digest of the stream, if it came with one."""

    def pieces(self, capacity: int = 0) -> Iterator[bytes]:
        """The stream, each piece once it was found good. Raises Refused, Failed.

        The last piece comes only if all was good. *capacity*: see
        :func:`moorline.hypervisors.vsphere.vmdk.checked`.
        """
        algorithm, expected = self.digest or ("sha256", "")
        found = hashlib.new(algorithm, usedforsecurity=False)
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)

                def read(count: int) -> bytes:
                    data = file.read(count)
                    found.update(data)
                    return data

                held = b""
                for piece in vmdk.checked(read, self.length, capacity=capacity):
                    yield held
                    held = piece
        except OSError as error:
            raise Failed(f"{self.path} cannot be read: {error.strerror}") from error
        except Refused as error:
            raise _about(self.path, error) from None
        if expected and found.hexdigest() != expected:
            raise Refused(
                f"{self.path.name} is not taken: its disk is not the one that the manifest"
                f" describes ({algorithm})"
            )
        yield held


def inspect(path: Path) -> Image:
    """Look at the image's beginning, and at a package's descriptor. Raises Refused, Failed."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise Refused("it is not a regular file")
        with path.open("rb") as file:
            first = file.read(vmdk.SECTOR)
            if first[257:262] == b"ustar":
                return _from_ova(path, ova.find_disk(file), file.seek, file.read)
            return Image(path, 0, path.stat().st_size, _capacity(first))
    except FileNotFoundError:
        raise Refused(f"there is no image {path}") from None
    except OSError as error:
        raise Failed(f"{path} cannot be read: {error.strerror}") from error
    except Refused as error:
        raise _about(path, error) from None


def _from_ova(
    path: Path, disk: ova.OvaDisk, seek: Callable[[int], int], read: Callable[[int], bytes]
) -> Image:
    seek(disk.member.offset)
    capacity = _capacity(read(min(vmdk.SECTOR, disk.member.length)))
    if capacity != disk.capacity:
        raise Refused(
            f"the OVF descriptor says {disk.capacity} bytes, the VMDK's header says {capacity}"
        )
    return Image(path, disk.member.offset, disk.member.length, capacity, disk.digest)


def _capacity(first: bytes) -> int:
    header = vmdk.parse(first)
    if not header.stream:
        raise Refused("this VMDK is not stream-optimised", hint=vmdk.CONVERT)
    return header.capacity


def _about(path: Path, error: Refused) -> Refused:
    return Refused(f"{path.name} is not taken: {error.message}", hint=error.hint)
