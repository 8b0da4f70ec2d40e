"""Ends the connection of a FUSE mount that hangs, by the kernel's control file system.

Facts: Documentation/filesystems/fuse.rst in the Linux source, "Control filesystem".
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from moorline.deadline import Deadline
from moorline.errors import Denied, Refused, Uncertain
from moorline.host.mount.fuse_clients import CONNECTIONS, clients, servers, serves_alone
from moorline.host.mount.users import PROC, called
from moorline.ports import Mount

_KILL_SECONDS = 10.0
"""How long a client that was killed may take to end. One that waits for a disk or a network may
take for ever."""
_POLL_SECONDS = 0.05


class FuseConnections:
    """Implements :class:`moorline.ports.inspection.FuseControl`. Never touches the mount itself.

    *kill_seconds*: that a client may take to end.
    """

    def __init__(
        self,
        connections: Path = CONNECTIONS,
        proc: Path = PROC,
        kill_seconds: float = _KILL_SECONDS,
    ) -> None:
        self._connections = connections
        self._proc = proc
        self._kill_seconds = kill_seconds

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

    def killable(self, mount: Mount, mounts: Sequence[Mount]) -> Sequence[str]:
        return [called(process) for process in self._servers(mount, mounts)]

    def kill(self, mount: Mount, mounts: Sequence[Mount]) -> None:
        for process in self._servers(mount, mounts):
            with suppress(ProcessLookupError):
                self._kill(process, mount, mounts)
        deadline = Deadline(self._kill_seconds)
        while (left := clients(mount, mounts, self._proc)) != []:
            if deadline.over():
                who = ", ".join(left) if left else "its client"
                raise Uncertain(
                    f"{mount.target} was aborted, and {who} was killed and has not ended",
                    hint="it is mounted anew when that has ended: moorline sweep",
                )
            deadline.sleep(_POLL_SECONDS)

    def _servers(self, mount: Mount, mounts: Sequence[Mount]) -> list[Path]:
        if clients(mount, mounts, self._proc) is None:
            raise Refused(f"it cannot be told which processes serve {mount.target}")
        found = servers(mount, mounts, self._proc)
        for process in found:
            if not serves_alone(process, mount, mounts):
                raise Refused(
                    f"{called(process)} serves another mount than {mount.target}, too, or may:"
                    " that would end with it"
                )
        return found

    def _kill(self, process: Path, mount: Mount, mounts: Sequence[Mount]) -> None:
        """Kill a process, but not another that has its number by now."""
        handle = os.pidfd_open(int(process.name))
        try:
            if process in servers(mount, mounts, self._proc):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        except PermissionError as e:
            raise Denied(f"{called(process)} cannot be killed", hint="run as root") from e
        finally:
            os.close(handle)
