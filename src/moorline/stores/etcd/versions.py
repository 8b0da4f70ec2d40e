"""What is known of the releases of etcd: which lose data, and which let grants be evaded.

Sources: etcd's CHANGELOG-3.4.md to CHANGELOG-3.7.md and security advisories, its postmortem of
the inconsistencies of 3.5, and "Two possible data inconsistency issues in etcd v3.4.[20-21]
and v3.5" (kubernetes-dev, November 2022). A distribution may have mended a release, and kept
its number: what is told here is what upstream's release of that number has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from moorline.errors import Refused

OLDEST = (3, 4)
"""Before it, a watch cannot ask for a member that has a leader."""
LOSES: Mapping[tuple[int, int], range] = {(3, 5): range(3)}
"""Members that are killed under load can come back with other data than the rest
(https://github.com/etcd-io/etcd/issues/13766)."""
DOUBTFUL: Mapping[tuple[int, int], range] = {(3, 4): range(20, 22), (3, 5): range(3, 6)}
"""Inconsistent after a crash during defragmentation, or where a member is added to a cluster
that has authentication enabled (fixed in 3.4.22 and 3.5.6)."""
GRANTS_HOLD: Mapping[tuple[int, int], int] = {(3, 5): 33, (3, 6): 14, (3, 7): 1}
"""The first patch of each series in which nothing is known that evades grants:

- transactions within transactions read and write all entries (GHSA-rfx7-8w68-q57q: fixed in
  3.5.28 and 3.6.9), and read them by ``prev_kv`` (CVE-2026-44283: 3.5.30, 3.6.11);
- a watch without an end sees all entries behind the first that its user may read
  (GHSA-xg4h-6gfc-h4m8: 3.5.33, 3.6.14, 3.7.1; 3.4 had reached its end of life before).
"""
FULL_IS_OPEN = ((3, 4), (3, 5))
"""Series in which a full member checks no grants of who deletes, and of who administers users
(https://github.com/etcd-io/etcd/pull/22386, not merged in November 2026)."""
NOT_TOLD = ""
"""A member that tells its version to root alone is of a release that was mended."""


def doubts(version: str, where: str) -> list[str]:
    """What people should know of a member of this release.

    Raises Refused: it is too old, or it loses data.
    """
    if version == NOT_TOLD:
        return []
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    if not found:
        return [f"{where} does not tell its version: {version[:40]!r}"]
    major, minor, patch = map(int, found.groups())
    series, named = (major, minor), f"{where} is etcd {version}"
    if series < OLDEST:
        raise Refused(f"{named}; Moorline needs 3.4 or newer", hint="upgrade etcd")
    if patch in LOSES.get(series, ()):
        raise Refused(
            f"{named}, which can lose data when it is killed",
            hint="upgrade etcd to 3.5.33 or newer",
        )
    return [f"{named}{doubt}" for doubt in _doubts(series, patch)]


def _doubts(series: tuple[int, int], patch: int) -> Iterator[str]:
    if patch in DOUBTFUL.get(series, ()):
        yield ", whose members can differ after a crash while they are defragmented or added"
    newest = max(GRANTS_HOLD)
    if series <= newest and patch < GRANTS_HOLD.get(series, 1 << 16):
        yield (
            ", in which whoever has a certificate of a host can read and write all entries:"
            " upgrade to 3.5.33, 3.6.14, 3.7.1 or newer"
        )
    if series in FULL_IS_OPEN:
        yield ", in which hosts can delete all entries while it is full: upgrade to 3.6 or newer"
