"""The files in which libvirtd saves its guests: they tell which of those did not change.

libvirtd saves what a guest is with each change, under the lock under which it changes it
(virDomainObjSave, virDomainDefSave): while it runs in ``/run/libvirt/qemu/NAME.xml``, its
definition in ``/etc/libvirt/qemu/NAME.xml``. Each is written beside that and renamed into place, so
it is another file each time. docs/decisions/0035 says which changes were tried, and what no
file tells.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakSet

URI = "qemu:///system"
"""Of the only libvirtd whose directories are known."""
STATUS, DEFINITIONS = Path("/run/libvirt/qemu"), Path("/etc/libvirt/qemu")
LIVE, CONFIG = 1, 2
"""VIR_DOMAIN_AFFECT_LIVE, VIR_DOMAIN_AFFECT_CONFIG: by which of the two is what saved."""
_XML = ".xml"
_TICK_NS = 10_000_000
"""Of the slowest clock by which Linux dates files: two changes within one tick look alike."""


class Stamp(NamedTuple):
    """Which file it is, and since when."""

    inode: int
    changed_ns: int
    modified_ns: int
    bytes: int


class Saved(NamedTuple):
    """The files of one guest; None: it does not run, or has no definition."""

    status: Stamp | None = None
    definition: Stamp | None = None


class SavedFiles:
    """The files of the guests of one libvirtd. Safe to use from several threads.

    They are believed once a change of ours, made by the very connection that is asked about, was
    seen in them: what is at the paths of this host may be another libvirtd's.
    """

    def __init__(self, uri: str, directories: tuple[Path, Path] = (STATUS, DEFINITIONS)) -> None:
        self._directories = directories
        self._local = uri == URI
        self._proven: WeakSet[Any] = WeakSet()
        self._guard = threading.Lock()

    def settled(self, virt: Any, name: str = "") -> Mapping[str, Saved]:
        """The files of each guest, or of that *name* alone, by its name.

        Empty: it is not known whether they are *virt*'s. Guests of which one changed a moment
        ago are left out: it may change once more, and look the same.
        """
        with self._guard:
            if virt not in self._proven:
                return {}
        latest = time.time_ns() - _TICK_NS
        try:
            found = [_stamps(directory, name) for directory in self._directories]
        except OSError:
            return {}
        status, definitions = found
        return {
            each: Saved(status.get(each), definitions.get(each))
            for each in status.keys() | definitions.keys()
            if all(
                max(stamp.changed_ns, stamp.modified_ns) < latest
                for stamp in (status.get(each), definitions.get(each))
                if stamp is not None
            )
        }

    @contextmanager
    def changing(self, virt: Any, name: str, flags: int) -> Iterator[None]:
        """Around a change of ours by *virt* to the guest *name*: see whether it is saved here.

        *flags*: of libvirt, whether what runs is changed, the definition, or both, which proves
        both directories.
        """
        if not self._local:
            yield
            return
        before = self._files(name)
        yield
        after = self._files(name)
        renewed = {
            flag: now not in (None, was)
            for flag, was, now in zip((LIVE, CONFIG), before, after, strict=True)
            if flags & flag
        }
        with self._guard:
            if not all(renewed.values()):
                self._proven.clear()
            elif renewed.keys() == {LIVE, CONFIG}:
                self._proven.add(virt)

    def _files(self, name: str) -> Sequence[Stamp | None]:
        return [_stamp(directory / f"{name}{_XML}") for directory in self._directories]


def _stamps(directory: Path, name: str = "") -> Mapping[str, Stamp]:
    """The files of all guests, or of one, by their names. Raises OSError (one is gone, say)."""
    if name:
        stamp = _stamp(directory / f"{name}{_XML}")
        return {} if stamp is None else {name: stamp}
    with os.scandir(directory) as entries:
        return {
            entry.name.removesuffix(_XML): _stamp_of(entry.stat(follow_symlinks=False))
            for entry in entries
            if entry.name.endswith(_XML)
        }


def _stamp(path: Path) -> Stamp | None:
    try:
        return _stamp_of(path.lstat())
    except OSError:
        return None


def _stamp_of(st: os.stat_result) -> Stamp:
    return Stamp(st.st_ino, st.st_ctime_ns, st.st_mtime_ns, st.st_size)
