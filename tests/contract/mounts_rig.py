"""What rigs of back ends that mount share: on a toy host, and on a real FUSE mount."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lab import host, standin
from moorline.host.linux import Linux
from moorline.host.mount.table import read
from moorline.ports import Mount
from moorline.testing.contracts.backend import BackendRig
from moorline.testing.toy_host import ToyHost, ToyShare
from tests.support import immutable

CLIENTS = Path(__file__).parents[2] / "lab/commands"


class OnToyHost(BackendRig):
    """Mounts beneath *base*; the good connection's is at *at*."""

    base: Path
    host: ToyHost
    at: str
    dead = 107
    """What the kernel says of a mount whose server is gone: ENOTCONN."""

    def world(self) -> object:
        return list(self.host.table), tree(self.base)

    def mounts(self) -> Sequence[Mount]:
        return self.host.mounts()

    def kill(self) -> None:
        self.host.share(self.at).error = self.dead

    def hang(self) -> None:
        self.host.share(self.at).hangs = True

    def heal(self) -> None:
        self.host.share(self.at).hangs = False

    def usurp(self) -> None:
        self.host.mount("tmpfs", self.at, "tmpfs", ToyShare())

    def remove(self) -> None:
        self.host.unmount(self.at)


class OnFuse(BackendRig):
    """Mounts beneath *base*; the good connection's is at *at*."""

    base: Path
    host: Linux
    at: str
    patience = 8.0

    def daemon(self, **control: Any) -> None:
        """Tell the stand-in's daemon to misbehave; with nothing: to behave."""
        raise NotImplementedError

    def world(self) -> object:
        return [m.target for m in read() if m.target.startswith(str(self.base))], tree(self.base)

    def mounts(self) -> Sequence[Mount]:
        return self.host.mounts()

    def kill(self) -> None:
        self.daemon(die=True)
        with suppress(OSError):
            while os.statvfs(self.at):  # its next request is its last
                pass
        self.daemon()

    def hang(self) -> None:
        self.daemon(hang=True)

    def heal(self) -> None:
        self.daemon()

    def usurp(self) -> None:
        Path(self.at).mkdir()
        standin.mount("none", self.at, "tmpfs")

    def remove(self) -> None:
        standin.umount(self.at)
        # As after a reboot: neither mount nor daemon.
        until = time.monotonic() + 30
        while self.host.held(Path(f"{self.at}.lock")):
            assert time.monotonic() < until, "the daemon does not end"
            time.sleep(0.01)

    def tear_down(self) -> None:
        self.daemon()
        self.host.close()
        for mount in reversed(read()):
            if mount.target.startswith(str(self.base)):
                host.umount(mount.target)
        immutable.let_go(self.base)


def tree(base: Path) -> list[str]:
    """The mount points and holds, without looking into what is mounted."""
    return sorted(path.name for path in base.iterdir()) if base.exists() else []
