"""What QEMU only reads keeps its owner; so QEMU's user must be able to read it as it is.

libvirt makes QEMU's user the owner of all files of a disk, and gives back only those that were
written to: a read-only one may be in use elsewhere, and so may one beneath an image
(``virSecurityDACRestoreImageLabelInt`` in src/security/security_dac.c of libvirt).
"""

from __future__ import annotations

import pwd
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

from moorline.errors import Failed, Refused
from moorline.model import DiskOptions, DiskSource, ImageFile
from moorline.ports import Readable


def qemu_ids(capabilities: str) -> tuple[int, int] | None:
    """QEMU's user and group, as libvirt tells it; None: it runs as libvirt does."""
    root = ET.fromstring(capabilities)  # noqa: S314 - libvirt's own output
    for model in root.iterfind("host/secmodel"):
        label = re.fullmatch(r"\+?(\d+):\+?(\d+)", model.findtext("baselabel", ""))
        if model.findtext("model") == "dac" and label:
            return int(label[1]), int(label[2])
    return None


def user_name(user: int) -> str:
    """The user's name; without one, its number."""
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def readable_here(path: Path, user: int, group: int) -> bool:
    """Cannot tell: for programs without a ``Host``. libvirt says it then, in its own words."""
    return True


def keeps_owner(source: ImageFile, options: DiskOptions) -> bool:
    """Whether libvirt must leave the image's owner as it is."""
    return options.readonly or not source.relabel


def only_read(source: DiskSource, options: DiskOptions) -> Iterator[Path]:
    """The files of *source* that QEMU reads, and that libvirt is told to leave as they are."""
    if isinstance(source, ImageFile):
        if options.readonly:
            yield source.path
        yield from (file.path for file in source.backing)


def demand_readable(
    path: Path, ids: tuple[int, int], readable: Readable, *, image: Path | None = None
) -> None:
    """Raise Refused unless QEMU's user can read *path* as it is; Failed, Uncertain.

    *image*: the one that it is beneath, if it is not the image itself.
    """
    named = f"{path}, a backing file of {image}," if image not in (None, path) else f"{path},"
    user, group = ids
    try:
        if readable(path, user, group):
            return
    except OSError as e:
        raise Failed(f"{named.rstrip(',')} cannot be looked at: {e.strerror}") from e
    raise Refused(
        f"QEMU's user {user_name(user)} cannot read {named}"
        " and what is only read keeps its owner and its permissions",
        hint=f"let it: chgrp {group} and chmod g+r, an access list, or chmod o+r;"
        " and o+x for the directories above it",
    )
