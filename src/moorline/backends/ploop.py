"""ploop: disk images that are directories, and of which ``ploop mount`` makes block devices.

Its link is stacked on another: the device, on a mount of the image's share that only such
devices use, so that the kernel's list of devices tells whether that mount is used.

Facts are those of ploop(8) and tools/ploop.c, https://github.com/OpenVZ/ploop.
"""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Generic

from moorline.backends import bare_directory
from moorline.backends.filesystem import F
from moorline.backends.mounter import Mounter
from moorline.errors import Failed, MoorlineError, NotOurs, Refused
from moorline.model import (
    BlockDevice,
    Broken,
    Caching,
    Client,
    Foreign,
    Link,
    Linked,
    LinkName,
    Unknown,
    Unlinked,
)
from moorline.ports import Command, Host
from moorline.ports.inspection import Found

NAMES = Path("/dev/moorline")
"""Devices have random numbers, so guests know them by our names. The names are gone after a
reboot, so no guest can start with a device number that is another image's by then."""
_LIST_DEADLINE_SECONDS = 5.0
_LISTED = re.compile(r"(?P<device>\S+) +(?P<image>/\S+)(?: .*)?")


class Ploop(Generic[F]):
    """The part of :class:`moorline.ports.StorageBackend` that is different for ploop images.

    *share* mounts for such images alone. *names*: the directory of the devices' names.
    *deadline*: seconds that ``ploop mount`` and ``ploop umount`` have each.
    """

    def __init__(
        self,
        host: Host,
        share: Mounter[F],
        *,
        caching: Caching,
        names: Path = NAMES,
        has_command: Callable[[str], object] = shutil.which,
        deadline: float,
    ) -> None:
        self._host = host
        self._share = share
        self._caching = caching
        self._names = names
        self._has_command = has_command
        self._deadline = deadline
        self._locks: dict[Path, threading.Lock] = {}

    def at(self, c: F, link: LinkName) -> F:
        """No option changes a device's name. Raises Refused if *link* is not its name."""
        raise Refused(f"{link} is no name of the device of {c.name} on {c.share}")

    def link_name(self, c: F) -> LinkName:
        """Our name of the device."""
        return LinkName(str(self._name(c)))

    def inspect(self, c: F) -> Link:
        """The state of the image's link.

        A half-made one is Broken, as Unlinked would be forgotten.
        """
        c = self._placed(c)
        mount = None if self._share.is_given(c) else self._share.mount_point(c)
        return self._link(self._name(c), self._directory(c), self._share.inspect(c), mount)

    def verify(self, c: F) -> BlockDevice:
        """Check the image's files. A guest is given their device."""
        self._share.verify(self._placed(c))
        return BlockDevice(self._name(c), self._caching)

    def connect(self, c: F) -> None:
        self._demand(self._name(c))
        c = self._placed(c)
        with self._lock(self._share.mount_point(c)):
            self._share.connect(c)
            # The image is checked before the kernel opens it.
            self._share.verify(c)
            self._make(self._name(c), self._directory(c))

    def disconnect(self, c: F) -> None:
        """Remove the device, and after the last one the mount."""
        c = self._placed(c)
        at = self._share.mount_point(c)
        with self._lock(at):
            self._take_away(self._name(c), self._directory(c))
            if not self._used(at):
                self._share.disconnect(c)

    def links(self) -> Sequence[Found]:
        """The devices; none if they cannot be listed."""
        with suppress(MoorlineError):
            return [Found(LinkName(str(name)), None) for name in self._found()]
        return []

    def clear(self, link: LinkName) -> bool:
        """Remove the device *link*, and after the last one its mount; False: it is not ours."""
        directory = self._found().get(Path(link))
        if directory is None:
            return False
        (base,) = self._share.places()
        ours = directory.is_relative_to(base)  # otherwise the operator mounted it
        at = base / directory.relative_to(base).parts[0] if ours else directory
        with self._lock(at):
            self._take_away(Path(link), directory)
            if ours and not self._used(at):
                self._share.clear(LinkName(str(at)))
        return True

    def _placed(self, c: F) -> F:
        """*c* with the place where its share is mounted, if it is.

        Our links do not say which options that was by. Of an image that has a device the kernel
        does, and of others the mount table.
        """
        files, name = self._share.file_system, self._share.name(c)
        targets = (Path(m.target) for m in self._host.mounts() if files.is_mount_of(c, m))
        made = next((at for at in targets if at.name == name), None)
        return replace(c, at=self._where_device_is(c) or made)

    def _where_device_is(self, c: F) -> Path | None:
        """The mount on which the image is that has the device; None: there is none, or no list."""
        with suppress(OSError, MoorlineError):
            device = self._name(c).readlink()
            for image, listed in self._devices():
                if listed == device and str(image.parent).endswith(f"/{c.name}"):
                    return Path(str(image.parent).removesuffix(f"/{c.name}"))
        return None

    def _lock(self, mount_point: Path) -> threading.Lock:
        """Images have links of their own, but one mount."""
        return self._locks.setdefault(mount_point, threading.Lock())

    def _name(self, c: F) -> Path:
        return self._names / bare_directory.name(self._share.kind, f"{c.share}/{c.name}")

    def _directory(self, c: F) -> Path:
        return self._share.mount_point(c) / c.name

    def _demand(self, name: Path) -> None:
        """Raise Refused if this host cannot make devices, NotOurs if it must not make this one."""
        if not self._has_command("ploop"):
            raise Refused(
                "a ploop image needs the command ploop, which this host does not have",
                hint="install it, or convert the volume to raw or qcow2",
            )
        _demand_ours(name)

    def _link(self, name: Path, directory: Path, share: Link, mount: Path | None) -> Link:
        """The link of the image in *directory*, on a share that is as *share* says.

        *mount*: the share's, if it is there for such images alone.
        """
        if isinstance(share, Foreign | Unknown):
            return share
        if not _is_ours(name):
            return Foreign(f"{name} is not a name that we gave a device")
        if self._host.held(_hold(name)):
            return Unknown(f"a ploop command for {directory} still runs", hangs=False)
        try:
            device = self._device(directory)
            used = mount is not None and self._used(mount)
        except MoorlineError as e:
            return Unknown(f"the ploop devices cannot be listed: {e}", hangs=False)
        if isinstance(share, Unlinked) and device:
            return Broken(f"{device} is there, but the share of its image is not mounted")
        if device is None and not name.is_symlink():
            return _bare(share, mount, used=used)
        if isinstance(share, Broken):
            # That a share is dead does not allow taking a device from under a guest.
            return replace(share, client=Client.UNKNOWN) if share.client is Client.GONE else share
        if device is None or not _leads(name, device):
            return Broken(f"{name} does not lead to the device of {directory}, {device}")
        return Linked(BlockDevice(name, self._caching))

    def _make(self, name: Path, directory: Path) -> None:
        """Make the device, and name it. Raises Failed, Uncertain."""
        if self._device(directory) is None:
            # Without -u the top of the image's snapshots is taken: the active one.
            self._run(name, "mount", str(directory / "DiskDescriptor.xml"))
        device = self._device(directory)
        if device is None:
            raise Failed(f"ploop mount says that it worked, but lists no device of {directory}")
        _point(name, device)

    def _take_away(self, name: Path, directory: Path) -> None:
        """Remove the device and its name. Raises Failed (busy), Uncertain, NotOurs."""
        _demand_ours(name)
        device = self._device(directory)
        if device is not None:
            # It is found by the device, as its image may lie on a dead share.
            self._run(name, "umount", "-d", str(device))
            if self._device(directory) == device:
                raise Failed(f"ploop umount says that it worked, but {device} is still there")
        with suppress(FileNotFoundError):
            name.unlink()
        with suppress(OSError):
            _hold(name).unlink()

    def _found(self) -> Mapping[Path, Path]:
        """Our names of devices, and the devices on our mounts that have no name.

        Each with its image's directory. Raises Failed, Uncertain.
        """
        names = {name.readlink(): name for name in self._links()}
        return {
            names.get(device, device): image.parent
            for image, device in self._devices()
            if device in names or any(map(image.is_relative_to, self._share.places()))
        }

    def _used(self, share: Path) -> bool:
        """Whether an image beneath *share* has a device. Raises Failed, Uncertain."""
        return any(image.is_relative_to(share) for image, _ in self._devices())

    def _links(self) -> Sequence[Path]:
        try:
            return [path for path in self._names.iterdir() if path.is_symlink()]
        except OSError:
            return []  # no name was given yet

    def _device(self, directory: Path) -> Path | None:
        """The device of the image in *directory*, by the kernel's list. Never asks the share."""
        return next((dev for image, dev in self._devices() if image.parent == directory), None)

    def _devices(self) -> Iterator[tuple[Path, Path]]:
        """Each device's base image, and the device."""
        if not self._has_command("ploop"):
            return
        listed = self._host.run(Command(("ploop", "list"), _LIST_DEADLINE_SECONDS)).stdout
        for match in map(_LISTED.fullmatch, listed.splitlines()):
            if match:
                yield Path(match["image"]), Path("/dev", match["device"])

    def _run(self, name: Path, *words: str) -> None:
        try:
            self._names.mkdir(mode=0o755, exist_ok=True)
        except OSError as e:
            raise Failed(f"{self._names} cannot be made: {e.strerror}") from e
        self._host.run(Command(("ploop", *words), self._deadline, hold=_hold(name)))


def _bare(share: Broken | Linked | Unlinked, mount: Path | None, *, used: bool) -> Link:
    """The state of an image with neither device nor name. *used*: others on its mount have some."""
    if used or isinstance(share, Unlinked):
        return Unlinked()  # while other images have devices there, even a dead mount is not renewed
    if isinstance(share, Broken):
        return share
    return Broken(f"{mount} is mounted for no device yet") if mount else Unlinked()


def _hold(name: Path) -> Path:
    return name.with_name(f"{name.name}.lock")


def _is_ours(name: Path) -> bool:
    return name.is_symlink() or not name.exists()


def _demand_ours(name: Path) -> None:
    if not _is_ours(name):
        raise NotOurs(f"{name} is not a name that we gave a device")


def _leads(name: Path, device: Path) -> bool:
    return name.is_symlink() and name.readlink() == device


def _point(name: Path, device: Path) -> None:
    """Make *name* lead to *device*, in one step. Raises Failed."""
    new = name.with_name(f"{name.name}.new")
    try:
        with suppress(FileNotFoundError):
            new.unlink()  # a crash left it
        new.symlink_to(device)
        new.replace(name)
    except OSError as e:
        raise Failed(f"{name} cannot be made: {e.strerror}") from e
