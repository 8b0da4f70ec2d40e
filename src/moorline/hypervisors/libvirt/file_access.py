"""Checks that QEMU can open files, and read those whose owner libvirt must not change.

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

from moorline.deadline import Deadline
from moorline.errors import Busy, Failed, Refused
from moorline.model import BlockDevice, DiskOptions, DiskSource, ImageFile
from moorline.ports import Openable, OpenAs, Readable

RELEASE_TIMEOUT_SECONDS = 2.0
"""Seconds that a process has to let go of a file that it has locked."""
_POLL_SECONDS = 0.1


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
    """True, for programs without a ``Host``: libvirt itself reports what it cannot read."""
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


def openable_here(path: Path, use: OpenAs) -> None:
    """Accept all, for programs without a ``Host``: QEMU itself reports what it cannot open."""


def demand_openable(
    source: DiskSource, options: DiskOptions, openable: Openable, *, mine: bool, direct: bool
) -> None:
    """Check that QEMU could open all files of *source*. *mine*: the guest has it open already.

    For a stopped guest libvirt would not notice before its start. A process that is letting a
    file go (an earlier QEMU, say) gets a moment for it. Raises Refused, Failed, Uncertain.
    """
    if not isinstance(source, ImageFile | BlockDevice):
        return
    form = source.format if isinstance(source, ImageFile) else "raw"
    uses = [(source.path, OpenAs(form, options.readonly, options.shared, direct, mine))]
    for file in source.backing if isinstance(source, ImageFile) else ():
        uses.append((file.path, OpenAs(file.format, True, False, direct, mine)))
    deadline = Deadline(RELEASE_TIMEOUT_SECONDS)
    for path, use in uses:
        _demand_openable(path, use, openable, deadline)


def _demand_openable(path: Path, use: OpenAs, openable: Openable, deadline: Deadline) -> None:
    while True:
        try:
            openable(path, use)
        except Busy as e:
            if deadline.over():
                raise Refused(
                    f"{e.message}, and QEMU would not open it",
                    hint="end what has it open (lsof, fuser), or attach it as shared to all",
                ) from e
        except OSError as e:
            raise Failed(f"{path} cannot be looked at: {e.strerror}") from e
        else:
            return
        deadline.sleep(_POLL_SECONDS)


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
