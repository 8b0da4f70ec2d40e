"""Keys of LUKS files and passwords of servers: that the hypervisor has what disks are opened with.

Both are parts of the connection, and are sealed with it: the key as ``encryption.key``.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from moorline.core.own_disk import is_somebody_elses
from moorline.errors import Refused
from moorline.model import (
    Attachment,
    Disk,
    DiskSource,
    DiskState,
    Level,
    Link,
    Linked,
    NetworkDisk,
)
from moorline.network_disk import NetworkLogin
from moorline.ports import Hypervisor, KeyKeeping, LoginKeeping, StorageBackend
from moorline.secret import Secret

FORMAT = "luks"
MAX_KEY_BYTES = 2048
_PROVIDERS = ("luks", "nova.volume.encryptors.luks.LuksEncryptor", "LuksEncryptor")
"""As Cinder has LUKS in the encryption of a volume's type. Others are dm-crypt's, or LUKS2."""
HOW = "--luks-key-file FILE; in a connection: encryption.key, in base64; for apply: luks_key_file"


def said(
    connection: Mapping[str, Any], typed: Callable[[str], Mapping[str, Any]]
) -> Mapping[str, Any]:
    """*connection*; if a key is given in it, with the format that its file has.

    A URL may have its encryption beside it, and *typed* tells its connection.
    Cinder says ``encrypted``, and of the format that it is raw, as it is inside.
    Raises Refused: the key cannot be used.
    """
    encryption = connection.get("encryption")
    if isinstance(url := connection.get("url"), str):
        connection = {**typed(url), "encryption": encryption}
    if encryption is None:
        return connection
    if not isinstance(encryption, Mapping):
        raise Refused("the connection's encryption is not a mapping")
    if encryption.get("key") is None:
        return connection
    _key(encryption)
    if encryption.get("provider", FORMAT) not in _PROVIDERS:
        raise Refused(
            "the connection's encryption is not LUKS by its provider", hint="QEMU knows LUKS1 alone"
        )
    data = connection.get("data", connection)
    if not isinstance(data, Mapping):
        raise Refused("the connection's data is not a mapping")
    cinders = True in (data.get("encrypted"), connection.get("encrypted"))
    if data.get("format") not in ((None, "", "raw", FORMAT) if cinders else (FORMAT,)):
        raise Refused("a key is given, and the format is not luks", hint="--format luks")
    told = {**data, "format": FORMAT}
    return {**connection, "data": told} if "data" in connection else told


def is_luks(connection: Mapping[str, Any]) -> bool:
    """Whether the connection says so."""
    data = connection.get("data", connection)
    return isinstance(data, Mapping) and data.get("format") == FORMAT


def demand_key(connection: Mapping[str, Any]) -> None:
    """Refuse a LUKS volume without a key."""
    encryption = connection.get("encryption")
    if not isinstance(encryption, Mapping) or encryption.get("key") is None:
        raise Refused("the volume is LUKS, and its key is not given", hint=HOW)


def demand_possible(
    connection: Mapping[str, Any], backend: StorageBackend[Any], hypervisor: Hypervisor
) -> None:
    """Refuse a LUKS volume that *hypervisor* cannot decipher, or that is none to *backend*."""
    demand_known(connection, backend)
    if is_luks(connection) and not isinstance(hypervisor, KeyKeeping):
        raise Refused(
            f"{hypervisor.kind} guests have no encrypted volumes: they would see cipher text"
        )


def demand_known(connection: Mapping[str, Any], backend: StorageBackend[Any]) -> None:
    """Refuse a LUKS volume that is none to its back end. Raises as its parse."""
    if is_luks(connection) and getattr(backend.parse(connection), "format", "") != FORMAT:
        raise Refused(
            f"encrypted {backend.kind} volumes are not supported: the guest would see cipher text"
        )


def demand_same_key(before: Attachment, attachment: Attachment) -> None:
    """Refuse another key than that of *before*: the hypervisor would go on with the old one.

    Where the link alone was ever wanted, it has none.
    """
    if not is_somebody_elses(before) and _key_of(before) != _key_of(attachment):
        volume, guest = attachment.key.volume, attachment.guest_name
        raise Refused(
            f"volume {volume} is wanted on {guest} with another key",
            hint=f"moorline detach {guest} {volume}",
        )


def give_key(hypervisor: Hypervisor, row: Attachment) -> None:
    """Have *hypervisor* know the key of *row*, if it has one. Raises as the port, and Refused."""
    if (key := _key_of(row)) is None:
        return
    if not isinstance(hypervisor, KeyKeeping):
        raise Refused(f"{hypervisor.kind} guests have no encrypted volumes")
    hypervisor.give_key(row.key.guest, row.key.volume, key)


def take_key(hypervisor: Hypervisor, row: Attachment) -> None:
    """Have *hypervisor* forget the key of *row*, which is about to be forgotten as well."""
    if _key_of(row) is not None and isinstance(hypervisor, KeyKeeping):
        hypervisor.take_key(row.key.guest, row.key.volume)


def is_locked(hypervisor: Hypervisor, row: Attachment, disk: Disk) -> bool:
    """Whether *disk* of *row* is there, and *hypervisor* could not open it again.

    Raises as the port.
    """
    plugged = row.want is Level.ATTACHED and disk.state is DiskState.WHOLE
    ours = plugged and not is_somebody_elses(row)
    return ours and (disk.locked or lacks_key(hypervisor, row))


def unlock(
    hypervisor: Hypervisor, row: Attachment, link: Link, login: Callable[[], NetworkLogin | None]
) -> None:
    """Have *hypervisor* know what the disk of *row* is opened with. Raises as the port.

    What it knows is left as it is: a guest may be on its way here. *login*: tells the password
    that is not in the connection. No server is asked: it may hang.
    """
    if lacks_key(hypervisor, row):
        give_key(hypervisor, row)
    source = link.source if isinstance(link, Linked) else None
    if isinstance(source, NetworkDisk):
        source = source if source.login else replace(source, login=login())
        if lacks_login(hypervisor, row, source):
            give_login(hypervisor, row, source)


def has_login(link: Link) -> bool:
    """Whether what is linked is a server's disk that takes a password of its connection."""
    source = link.source if isinstance(link, Linked) else None
    return isinstance(source, NetworkDisk) and source.login is not None


def give_login(hypervisor: Hypervisor, row: Attachment, source: DiskSource) -> None:
    """Have *hypervisor* know the password of *source*, if it takes one. Raises as the port."""
    if isinstance(source, NetworkDisk) and isinstance(hypervisor, LoginKeeping):
        hypervisor.give_login(row.key.guest, row.key.volume, source)


def take_login(hypervisor: Hypervisor, row: Attachment, link: Link) -> None:
    """Have *hypervisor* forget the password of *row*, which is about to be forgotten as well."""
    source = link.source if isinstance(link, Linked) else None
    if isinstance(source, NetworkDisk) and isinstance(hypervisor, LoginKeeping):
        hypervisor.take_login(row.key.guest, row.key.volume)


def lacks_login(hypervisor: Hypervisor, row: Attachment, source: DiskSource) -> bool:
    """Whether *source* takes a password that *hypervisor* does not have. Raises as the port."""
    if not isinstance(source, NetworkDisk) or not isinstance(hypervisor, LoginKeeping):
        return False
    return not hypervisor.has_login(row.key.guest, row.key.volume, source)


def lacks_key(hypervisor: Hypervisor, row: Attachment) -> bool:
    """Whether *row* has a key that *hypervisor* does not have. Raises as the port."""
    if _key_of(row) is None or not isinstance(hypervisor, KeyKeeping):
        return False
    return not hypervisor.has_key(row.key.guest, row.key.volume)


def _key_of(row: Attachment) -> Secret[bytes] | None:
    """None: it is no LUKS volume, or somebody else plugs it, who has the key."""
    connection = row.connection.reveal()
    if row.hands_off or not is_luks(connection):
        return None
    encryption = connection.get("encryption")
    return _key(encryption) if isinstance(encryption, Mapping) else None


def _key(encryption: Mapping[str, Any]) -> Secret[bytes]:
    text = encryption.get("key")
    try:
        key = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError):
        key = b""
    if not 0 < len(key) <= MAX_KEY_BYTES:
        raise Refused(
            f"the key in the connection's encryption is not 1 to {MAX_KEY_BYTES} bytes in base64"
        )
    return Secret(key)
