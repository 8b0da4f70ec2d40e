"""Disks that are on this host already: files and block devices. Nothing is mounted."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from moorline.backends import image_check
from moorline.backends.allowed_directories import LOCAL_DIRECTORIES, Directories
from moorline.backends.connection_info import ConnectionInfo, absolute_path, typed
from moorline.backends.host_use import HostUse
from moorline.errors import Failed, Refused, Uncertain
from moorline.model import (
    BlockDevice,
    Format,
    ImageFile,
    Link,
    Linked,
    LinkName,
    VolumeId,
)
from moorline.ports import CheckedFile, Host, Mount, Option, Values
from moorline.ports.inspection import GuestDisk
from moorline.ports.mount import by_target, covering
from moorline.ports.recognising import Recognised

DEVICES = Path("/dev")
_HOSTS = (Path("/run/moorline"), Path("/etc/moorline"))
"""Where Moorline's locks are (:mod:`moorline.host.file_lock`), and its configuration."""
_RECORDS = "moorline.db"
"""What a state directory has, whoever's it is (:mod:`moorline.wiring`)."""
KERNELS = frozenset(
    (
        *("autofs", "binder", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "cpuset"),
        *("debugfs", "devpts", "devtmpfs", "efivarfs", "functionfs", "fusectl", "gadgetfs"),
        *("mqueue", "nfsd", "nsfs", "ocfs2_dlmfs", "openpromfs", "proc", "pstore", "resctrl"),
        *("rpc_pipefs", "securityfs", "selinuxfs", "smackfs", "spufs", "sysfs", "tracefs", "xenfs"),
    )
)
"""Types of file systems whose files are the kernel's: reading or writing one has side effects."""
FORMATS: tuple[Format, ...] = ("raw", "qcow2", "luks")
_SCHEME = "file://"


@dataclass(frozen=True, slots=True)
class LocalDisk:
    """A file, or a device beneath the directory of devices."""

    path: Path
    format: Format
    volume: VolumeId | None = None
    name: str = ""
    """The link is the volume."""


class LocalFile:
    """Files and block devices of the host, as an operator names them.

    What lies beneath ``/dev`` is a device, all else a file. A file's path is its
    real path: what a person types is resolved when it is typed, and a
    connection that leads through a symbolic link is refused, because one disk
    under two paths could be attached twice, and a link can be turned. Device
    nodes may be links (``/dev/disk/by-id/…``): those names last, what they
    lead to does not, and only root makes them.

    Never a disk: a file of *state_dir*, where our key and our records are, or of the
    state directory of another owner; a file of the kernel's (/proc, /sys), wherever
    it is mounted; what this host itself has mounted, swaps to or has made something
    of; and a file with several names, for which of them may be given away is then not
    told by the one given.
    What counts is the file that was opened, so no bind mount and no link hides it.
    """

    kind: ClassVar[str] = "local"
    yields: ClassVar[frozenset[type]] = frozenset({ImageFile, BlockDevice})
    options: ClassVar[Sequence[Option]] = (LOCAL_DIRECTORIES,)

    def __init__(
        self,
        host: Host,
        *,
        state_dir: Path,
        directories: Directories | None = None,
        devices: Path = DEVICES,
        use: HostUse | None = None,
    ) -> None:
        self._host = host
        self._state_dir = state_dir
        self._directories = directories or Directories()
        self._devices = devices
        self._use = use or HostUse()

    @classmethod
    def from_options(cls, host: Host, values: Values) -> LocalFile:
        directories = Directories.from_options(values)
        return cls(host, state_dir=Path(values["state_dir"]), directories=directories)

    def from_url(self, url: str, format: Format | None) -> Mapping[str, Any]:
        """An absolute path, or ``file:///path``, to a connection. Raises Refused.

        Symbolic links among its directories are resolved, if they answer.
        """
        path = Path(url.removeprefix(_SCHEME))
        if not path.is_absolute() or not path.name or path.name == "..":
            raise Refused(f"{url[:80]!r} is not the absolute path of a file")
        if not path.is_relative_to(self._devices):
            mount = covering(str(path), by_target(self._host.mounts()))
            if mount is not None and mount.fstype == "proc":
                # What /proc/PID/root and the like lead to is not what their text says: proc(5).
                _demand_no_kernels(path, mount)
            path = self._real_directory(path.parent) / path.name
        return typed(self.kind, {"path": str(path)}, format)

    def url(self, c: LocalDisk) -> str:
        """See :class:`moorline.ports.Naming`."""
        return str(c.path)

    def parse(self, connection: Mapping[str, Any]) -> LocalDisk:
        """Validate a connection. Raises Refused."""
        info = ConnectionInfo(self.kind, connection)
        path = Path(absolute_path(info.text("path", 4096)))
        info.refuse_options()
        format = info.format(FORMATS)
        if path.is_relative_to(self._devices) and format not in ("raw", "luks"):
            raise Refused(f"the device {path} can only be raw, or luks")
        return LocalDisk(path, format, info.volume_id())

    def recognise(
        self,
        disk: GuestDisk,
        mount: Mount | None,
        *,
        ours: bool = False,
        known: Sequence[Any] = (),
    ) -> Recognised | None:
        """Any file or device: whoever asks must have been told that local ones are meant."""
        if not disk.path.startswith("/"):
            return None  # a server's
        data = {"path": disk.path, "format": disk.format}
        return Recognised({"driver_volume_type": self.kind, "data": data})

    def demand_for_others(self, c: LocalDisk) -> None:
        """See :class:`moorline.ports.Confined`. The path is the real one: verify sees to that."""
        self._directories.demand_for_others(c.path)

    def link_name(self, c: LocalDisk) -> LinkName:
        return LinkName(str(c.path))

    def inspect(self, c: LocalDisk) -> Link:
        """Always there, as far as we are concerned: :meth:`verify` looks closer."""
        if c.path.is_relative_to(self._devices):
            return Linked(BlockDevice(c.path, format=c.format), given=True)
        return Linked(ImageFile(c.path, c.format), given=True)

    def verify(self, c: LocalDisk) -> ImageFile | BlockDevice:
        """See :meth:`moorline.ports.StorageBackend.verify`.

        Backing files must lie in the image's own directory or beneath it.
        """
        self._directories.demand(c.path)
        if c.path.is_relative_to(self._devices):
            self._verify_device(c.path)
            return BlockDevice(c.path, format=c.format)
        directory = c.path.parent
        try:
            real = self._host.root(directory).path
            if real != directory:
                raise Refused(
                    f"{c.path} leads through a symbolic link", hint=f"use {real / c.path.name}"
                )
        except (FileNotFoundError, NotADirectoryError) as e:
            raise Refused(f"there is no directory {directory}") from e
        except OSError as e:
            raise Failed(f"{c.path} cannot be looked at: {e.strerror}") from e
        self._demand_elsewhere(directory)
        # Before it is opened: to read some of them fails, or has side effects.
        _demand_no_kernels(c.path, covering(str(c.path), by_target(self._host.mounts())))
        return image_check.checked(
            self._host, directory, ImageFile(c.path, c.format), self._demand_open_to_guests
        )

    def connect(self, c: LocalDisk) -> None:
        """Nothing is made; the disk is only verified."""
        self.verify(c)

    def disconnect(self, c: LocalDisk) -> None:
        """There is nothing to undo."""

    def _demand_elsewhere(self, directory: Path) -> None:
        """Raise Refused if a directory lies within that of our state."""
        ours = (self._state_dir, *_HOSTS)
        if any(directory.is_relative_to(os.path.realpath(each)) for each in ours):
            raise _is_ours(directory)

    def _demand_open_to_guests(self, file: CheckedFile) -> None:
        """Raise Refused if no guest may have the file, whatever its name."""
        mounts = self._host.mounts()
        mount = next((m for m in mounts if m.id == file.mount), None)
        _demand_no_kernels(file.path, mount)
        if (file.device, file.inode) in _files_in(self._state_dir):
            raise _is_ours(file.path)
        if mount is not None:
            self._demand_in_no_state(file.path, mount, mounts)
        self._use.demand_free_file(file.path)
        if file.names > 1:
            raise Refused(
                f"{file.path} has {file.names} names (hard links)",
                hint="whose file it is besides cannot be told: copy it, or remove the other names",
            )

    def _demand_in_no_state(self, path: Path, mount: Mount, mounts: Sequence[Mount]) -> None:
        """Raise Refused if *path* lies in any state directory. Raises Uncertain."""
        directories = {each for name in _names(path, mount, mounts) for each in name.parents}
        records = [(str(each / _RECORDS), "raw") for each in sorted(directories)]
        found = self._host.files(path.parent, records)
        if any(not isinstance(each, OSError) for each in found):
            raise _is_ours(path)

    def _real_directory(self, directory: Path) -> Path:
        try:
            return self._host.root(directory).path
        except (OSError, Uncertain):
            # A volume whose directory is gone must still be detachable.
            return Path(*PurePosixPath(directory).parts)

    def _verify_device(self, path: Path) -> None:
        try:
            st = path.stat()  # /dev does not hang
        except FileNotFoundError:
            raise Refused(f"there is no device {path}") from None
        except OSError as e:
            raise Failed(f"{path} cannot be looked at: {e.strerror}") from e
        if not stat.S_ISBLK(st.st_mode):
            raise Refused(f"{path} is not a block device")
        self._use.demand_free_device(path, st.st_rdev, self._host.mounts())


def _is_ours(path: Path) -> Refused:
    return Refused(f"{path} is part of Moorline's own state, and no guest may have it")


def _demand_no_kernels(path: Path, mount: Mount | None) -> None:
    """Raise Refused if *path*, on *mount*, is a file of the kernel's."""
    if mount is not None and mount.fstype in KERNELS:
        raise Refused(f"{path} is a file of the kernel's ({mount.fstype}), not a disk")


def _names(path: Path, mount: Mount, mounts: Sequence[Mount]) -> Iterator[Path]:
    """*path*, on *mount*, by each mount of its file system: a bind mount hides where it lies.

    A directory deep in a state may be mounted elsewhere, alone.
    """
    real = Path(mount.root) / path.relative_to(mount.target)
    for each in mounts:
        if each.device == mount.device and real.is_relative_to(each.root):
            yield Path(each.target) / real.relative_to(each.root)


def _files_in(directory: Path) -> frozenset[tuple[int, int]]:
    """Device and inode of all that is in *directory*; nothing of it is asked, as it may hang."""
    try:
        device = directory.stat().st_dev
        with os.scandir(directory) as entries:
            return frozenset((device, entry.inode()) for entry in entries)
    except OSError:
        return frozenset()  # it is not there yet, or not for us to see: so are its files
