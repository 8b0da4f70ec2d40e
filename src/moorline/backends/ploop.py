"""ploop: a disk image that is a directory, and that ``ploop mount`` makes a block device.

Facts are those of ploop(8) and tools/ploop.c, https://github.com/OpenVZ/ploop.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from moorline.errors import Failed, MoorlineError, NotOurs, Refused
from moorline.model import (
    BlockDevice,
    Broken,
    Caching,
    Client,
    Foreign,
    Link,
    Linked,
    Unknown,
    Unlinked,
)
from moorline.ports import Command, Host

NAMES = Path("/dev/moorline")
"""Devices have random numbers, so guests know them by names of ours. A reboot takes
the names away: no guest can start with a number that is another image's by then."""
_LIST_DEADLINE_SECONDS = 5.0
_LISTED = re.compile(r"(?P<device>\S+) +(?P<image>/\S+)(?: .*)?")


class Ploop:
    """The ploop devices of this host.

    *names*: the directory of the devices' names. *deadline*: seconds that
    ``ploop mount`` and ``ploop umount`` have each.
    """

    def __init__(
        self,
        host: Host,
        *,
        names: Path = NAMES,
        has_command: Callable[[str], object] = shutil.which,
        deadline: float,
    ) -> None:
        self._host = host
        self._names = names
        self._has_command = has_command
        self._deadline = deadline

    def name(self, name: str) -> Path:
        """Where the device of the image *name* appears."""
        return self._names / name

    def demand(self, name: Path) -> None:
        """Raise Refused if this host cannot make devices, NotOurs if it must not make this one."""
        if not self._has_command("ploop"):
            raise Refused(
                "a ploop image needs the command ploop, which this host does not have",
                hint="install it, or convert the volume to raw or qcow2",
            )
        _demand_ours(name)

    def link(
        self, name: Path, directory: Path, share: Link, caching: Caching, mount: Path | None
    ) -> Link:
        """What is there of the image in *directory*, on a share that is as *share* says.

        *mount*: the share's, if it is there for such images alone. What is half made
        is Broken, for what is Unlinked is forgotten.
        """
        if isinstance(share, Foreign | Unknown):
            return share
        if not _is_ours(name):
            return Foreign(f"{name} is not a name that we gave a device")
        if self._host.held(_hold(name)):
            return Unknown(f"a ploop command for {directory} still runs", hangs=False)
        try:
            device = self._device(directory)
            used = mount is not None and self.used(mount)
        except MoorlineError as e:
            return Unknown(f"the ploop devices cannot be listed: {e}", hangs=False)
        if isinstance(share, Unlinked) and device:
            return Broken(f"{device} is there, but the share of its image is not mounted")
        if device is None and not name.is_symlink():
            return _bare(share, mount, used=used)
        if isinstance(share, Broken):
            # A dead share gives no leave to take a device from under a guest.
            return replace(share, client=Client.UNKNOWN) if share.client is Client.GONE else share
        if device is None or not _leads(name, device):
            return Broken(f"{name} does not lead to the device of {directory}, {device}")
        return Linked(self.source(name, caching))

    def source(self, name: Path, caching: Caching) -> BlockDevice:
        """What a guest is given."""
        return BlockDevice(name, caching)

    def connect(self, name: Path, directory: Path) -> None:
        """Make the device, and name it. Raises Failed, Uncertain."""
        if self._device(directory) is None:
            # Without -u the top of the image's snapshots is taken: the active one.
            self._run(name, "mount", str(directory / "DiskDescriptor.xml"))
        device = self._device(directory)
        if device is None:
            raise Failed(f"ploop mount says that it worked, but lists no device of {directory}")
        _point(name, device)

    def disconnect(self, name: Path, directory: Path) -> None:
        """Take the device and its name away. Raises Failed (busy), Uncertain, NotOurs."""
        _demand_ours(name)
        device = self._device(directory)
        if device is not None:
            # By the device: its image may lie on a share that is dead.
            self._run(name, "umount", "-d", str(device))
            if self._device(directory) == device:
                raise Failed(f"ploop umount says that it worked, but {device} is still there")
        with suppress(FileNotFoundError):
            name.unlink()
        with suppress(OSError):
            _hold(name).unlink()

    def found(self, base: Path) -> Mapping[Path, Path]:
        """The names that lead to a device, and what has a device beneath *base* without one.

        Each with its image's directory. Raises Failed, Uncertain.
        """
        names = {name.readlink(): name for name in self._links()}
        return {
            names.get(device, device): image.parent
            for image, device in self._devices()
            if device in names or image.is_relative_to(base)
        }

    def used(self, share: Path) -> bool:
        """Whether an image beneath *share* has a device. Raises Failed, Uncertain."""
        return any(image.is_relative_to(share) for image, _ in self._devices())

    def _links(self) -> Sequence[Path]:
        try:
            return [path for path in self._names.iterdir() if path.is_symlink()]
        except OSError:
            return []  # no name was given yet

    def _device(self, directory: Path) -> Path | None:
        """The device of the image in *directory*, as the kernel tells it. Never asks the share."""
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
    """What there is of an image that has neither device nor name. *used*: others have devices."""
    if used or isinstance(share, Unlinked):
        return Unlinked()  # while others have devices there, even a dead share is not made anew
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
