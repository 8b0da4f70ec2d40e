"""Resolves paths through symlinks and bind mounts, without waiting for a share that hangs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence

from moorline.errors import MoorlineError
from moorline.ports.mount import Mount, MountsByPath, innermost

Follow = Callable[[str, Sequence[str], Collection[str]], Sequence[str]]
"""Resolves paths on a share in a child; *stops*: mount points at which it stops."""


def places(
    paths: Iterable[str], mounts: Sequence[Mount], follow: Follow
) -> dict[str, frozenset[str] | None]:
    """All paths on this host of what each path leads to; None: it is unknown.

    Symlinks outside of shares are followed first, without touching a share; then those on
    each share. If a share hangs, only its own paths are unknown.
    """
    shares = {mount.target for mount in mounts if mount.may_hang}
    asked = sorted({*paths})
    found = dict(zip(asked, _followed(follow, "/", asked, shares), strict=True))
    by_share: dict[str, list[str]] = {}
    for path, at in found.items():
        if at and (share := innermost(at, shares)):
            by_share.setdefault(share, []).append(path)
    for share, its in by_share.items():
        there = _followed(follow, share, [found[path] for path in its], shares - {share})
        found |= dict(zip(its, there, strict=True))
    copies = _Copies(mounts)
    return {path: copies.of(at) if at else None for path, at in found.items()}


def _followed(
    follow: Follow, share: str, paths: Sequence[str], stops: Collection[str]
) -> Sequence[str]:
    if not paths:
        return ()
    try:
        return follow(share, paths, stops)
    except (MoorlineError, OSError):
        return [""] * len(paths)


class _Copies:
    """Copies of mounts, which come and go with the originals.

    If a directory is bound to another place, what is mounted beneath it is mounted there,
    too: the same device, and a mount point of the same name.
    """

    def __init__(self, mounts: Sequence[Mount]) -> None:
        self._mounts = MountsByPath(mounts)
        self._alike: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        for mount in mounts:
            if name := _name(mount.target):
                self._alike[mount.device, name].add(mount.target)

    def of(self, path: str) -> frozenset[str]:
        """*path*, and its names on copies of its mount."""
        at = self._mounts.covering(path)
        if at is None:
            return frozenset({path})
        alike = self._alike.get((at.device, _name(at.target)), ())
        return frozenset({path, *(target + path[len(at.target) :] for target in alike)})


def _name(path: str) -> str:
    return path.rpartition("/")[2]
