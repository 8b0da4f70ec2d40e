"""The directories in which local files and devices may be disks, and whose disks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from moorline.errors import Denied, Refused
from moorline.ports import Option, Values

FOR_OTHERS = Path("/var/lib/libvirt/images")
LOCAL_DIRECTORIES = Option(
    "local_directories",
    "",
    "Directories in which local disks may lie, devices too, comma-separated. Default:"
    f" anywhere for root and the agent's own user, {FOR_OTHERS} for others who ask the agent.",
)


class Directories:
    """The directories that are *named* by the option, or the defaults if none is."""

    def __init__(self, named: Sequence[Path] = (), *, for_others: Path = FOR_OTHERS) -> None:
        if strange := [str(each) for each in named if not each.is_absolute()]:
            raise Refused(f"{LOCAL_DIRECTORIES.name}: {strange[0]!r} is not an absolute path")
        # Disks are known by their real paths.
        self._named = [Path(os.path.realpath(each)) for each in named]
        self._for_others = Path(os.path.realpath(for_others))

    @classmethod
    def from_options(cls, values: Values) -> Directories:
        """Read the option. Raises Refused."""
        named = (each.strip() for each in values[LOCAL_DIRECTORIES.name].split(","))
        return cls([Path(each) for each in named if each])

    def demand(self, path: Path) -> None:
        """Raise Refused unless a disk may lie at *path*, its real path."""
        if self._named and not any(map(path.is_relative_to, self._named)):
            raise Refused(
                f"{path} is not where local disks may lie",
                hint=f"{LOCAL_DIRECTORIES.name} names the directories",
            )

    def demand_for_others(self, path: Path) -> None:
        """The same for a caller that is neither root nor our own user. Raises Denied."""
        named = self._named or [self._for_others]
        if not any(map(path.is_relative_to, named)):
            raise Denied(
                f"{path} is not where this user's local disks may lie:"
                f" {', '.join(map(str, named))}",
                hint=f"let others by {LOCAL_DIRECTORIES.name}"
                + ("" if self._named else ", or attach it as root"),
            )
