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
LOSING_DATA: Mapping[tuple[int, int], range] = {(3, 5): range(3)}
"""Members that are killed under load can come back with other data than the rest
(https://github.com/etcd-io/etcd/issues/13766)."""
DIVERGING: Mapping[tuple[int, int], range] = {(3, 4): range(20, 22), (3, 5): range(3, 6)}
"""Inconsistent after a crash during defragmentation, or where a member is added to a cluster
that has authentication enabled (fixed in 3.4.22 and 3.5.6)."""
GRANTS_HOLD_FROM: Mapping[tuple[int, int], int] = {(3, 5): 33, (3, 6): 14, (3, 7): 1}
"""The first patch of each series in which nothing is known that evades grants:

- transactions within transactions read and write all entries (GHSA-rfx7-8w68-q57q: fixed in
  3.5.28 and 3.6.9), and read them by ``prev_kv`` (CVE-2026-44283: 3.5.30, 3.6.11);
- a watch without an end sees all entries behind the first that its user may read
  (GHSA-xg4h-6gfc-h4m8: 3.5.33, 3.6.14, 3.7.1; 3.4 had reached its end of life before).
"""
UNGUARDED_WHEN_FULL = ((3, 4), (3, 5))
"""Series in which a full member checks no grants of who deletes, and of who administers users
(https://github.com/etcd-io/etcd/pull/22386, not merged in November 2026)."""
FOR_ROOT_ALONE = ""
"""In place of the version of a member that tells it to root alone: it was mended in 2026."""


def warnings_of(version: str, where: str) -> list[str]:
    """What is known against a member of this release, for people.

    Raises Refused: it is too old, or it loses data.
    """
    if version == FOR_ROOT_ALONE:
        return []
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    if not found:
        return [f"{where} does not tell its version: {version[:40]!r}"]
    major, minor, patch = map(int, found.groups())
    series, named = (major, minor), f"{where} is etcd {version}"
    if series < OLDEST:
        raise Refused(f"{named}; Moorline needs 3.4 or newer", hint="upgrade etcd")
    if patch in LOSING_DATA.get(series, ()):
        raise Refused(
            f"{named}, which can lose data when it is killed",
            hint="upgrade etcd to 3.5.33 or newer",
        )
    return [f"{named}{warning}" for warning in _warnings(series, patch)]


def _warnings(series: tuple[int, int], patch: int) -> Iterator[str]:
    if patch in DIVERGING.get(series, ()):
        yield ", whose members can differ after a crash while they are defragmented or added"
    newest = max(GRANTS_HOLD_FROM)
    if series <= newest and patch < GRANTS_HOLD_FROM.get(series, 1 << 16):
        yield (
            ", in which whoever has a certificate of a host can read and write all entries:"
            " upgrade to 3.5.33, 3.6.14, 3.7.1 or newer"
        )
    if series in UNGUARDED_WHEN_FULL:
        yield ", in which hosts can delete all entries while it is full: upgrade to 3.6 or newer"
