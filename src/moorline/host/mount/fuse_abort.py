"""Ends the connection of a FUSE mount that hangs, by the kernel's control file system.

Facts: Documentation/filesystems/fuse.rst in the Linux source, "Control filesystem".
"""

from __future__ import annotations

import os
from pathlib import Path

from moorline.errors import Denied, Refused
from moorline.ports import Mount

CONNECTIONS = Path("/sys/fs/fuse/connections")


class FuseConnections:
    """Implements :class:`moorline.ports.inspection.FuseControl`. Never touches the mount itself."""

    def __init__(self, connections: Path = CONNECTIONS) -> None:
        self._connections = connections

    def abort(self, mount: Mount) -> None:
        if not (mount.fstype == "fuse" or mount.fstype.startswith("fuse.")):
            raise Refused(f"{mount.target} is {mount.fstype}, and only FUSE can be aborted")
        # A connection is named by its device's minor number.
        file = self._connections / mount.device.partition(":")[2] / "abort"
        try:
            control = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError as e:
            raise Refused(
                f"the kernel does not show the FUSE connection of {mount.target}",
                hint=f"mount -t fusectl fusectl {self._connections}",
            ) from e
        except OSError as e:
            raise Denied(f"{file} cannot be opened: {e.strerror}", hint="run as root") from e
        try:
            os.write(control, b"1")
        finally:
            os.close(control)
