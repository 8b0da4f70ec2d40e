"""Which releases of etcd hold what they were given.

Sources: etcd's CHANGELOG-3.4.md and CHANGELOG-3.5.md, its postmortem of the inconsistencies
of 3.5, and the two notes of November 2022 of its maintainers (kubernetes-dev, "Two possible
data inconsistency issues in etcd v3.4.[20-21] and v3.5").
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from moorline.errors import Refused

OLDEST = (3, 4)
"""Before it, a watch cannot ask for a member that has a leader and for its progress."""
LOSES: Mapping[tuple[int, int], range] = {(3, 5): range(3)}
"""Members that are killed under load can come back with other data than the rest
(https://github.com/etcd-io/etcd/issues/13766)."""
DOUBTFUL: Mapping[tuple[int, int], range] = {(3, 4): range(20, 22), (3, 5): range(3, 6)}
"""Inconsistent after a crash during defragmentation, or where a member is added to a cluster
that has authentication enabled (fixed in 3.4.22 and 3.5.6)."""


def doubt(version: str, where: str) -> str:
    """What people should know of this release; '' for nothing.

    Raises Refused: it is too old, or it loses data.
    """
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    if not found:
        return f"{where} does not tell its version: {version[:40]!r}"
    major, minor, patch = map(int, found.groups())
    if (major, minor) < OLDEST:
        raise Refused(
            f"{where} is etcd {version}; Moorline needs 3.4 or newer", hint="upgrade etcd"
        )
    if patch in LOSES.get((major, minor), ()):
        raise Refused(
            f"{where} is etcd {version}, which can lose data when it is killed",
            hint="upgrade etcd to 3.5.6 or newer",
        )
    if patch in DOUBTFUL.get((major, minor), ()):
        return (
            f"{where} is etcd {version}, whose members can differ after a crash while they are"
            " defragmented or added: upgrade to 3.4.22, 3.5.6 or newer"
        )
    return ""
