"""Compute hosts of a test: each has an agent of its own, real, on the lab's machine."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from moorline.errors import Unavailable
from moorline.local_api.client import Client

MOORLINE = os.environ.get("MOORLINE", "moorline")
"""The command; the agent lives in another virtual environment than Nova."""


class ComputeHost:
    """An agent with a state directory and mount points of its own."""

    def __init__(self, base: Path, name: str) -> None:
        self.name = name
        self.base = base
        self.state = base / f"{name}.state"
        self.socket = base / f"{name}.sock"
        self.mounts = base / f"{name}.mnt"
        self.temporary = base / f"{name}.tmp"
        for directory in (self.mounts, self.temporary):
            directory.mkdir(mode=0o755)
        self.config = base / f"{name}.conf"
        self.environment = {
            **os.environ,
            "MOORLINE_STATE_DIR": str(self.state),
            "TMPDIR": str(self.temporary),
        }
        self.configure()
        self._process: subprocess.Popen[bytes] | None = None
        self.client = Client(self.socket, timeout=30)

    def configure(self, *lines: str) -> None:
        """Write the agent's configuration, with more *lines* beneath ``[libvirt]``."""
        self.config.write_text(
            f"[moorline]\nagent_socket = {self.socket}\n"
            "[libvirt]\n"
            f"quobyte_mount_point_base = {self.mounts}\n"
            f"vzstorage_mount_point_base = {self.mounts}\n"
            "vzstorage_mount_user = root\n"
            "vzstorage_mount_group = root\n" + "\n".join(lines)
        )

    def start(self, *more: Path) -> None:
        """Start the agent, with *more* files of options, and wait until it answers."""
        files = (self.config, *more)
        log = (self.base / f"{self.name}.log").open("ab")
        self._process = subprocess.Popen(
            [MOORLINE, "agent", *(word for file in files for word in ("--config-file", file))],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        end = time.monotonic() + 120
        while True:
            try:
                self.client.about()
                return
            except Unavailable:
                if time.monotonic() > end or self._process.poll() is not None:
                    raise AssertionError(self.log()) from None
                time.sleep(0.1)

    def log(self) -> str:
        return (self.base / f"{self.name}.log").read_text()

    def kill(self) -> None:
        """SIGKILL: it has no time to tidy up."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(30)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(30)

    def attachments(self) -> Mapping[tuple[str, str], str]:
        """What is wanted, by volume and instance."""
        return {
            (view.volume, view.guest_id): view.wanted for view in self.client.attachments.list()
        }

    def wanted(self) -> set[str]:
        """The volumes that somebody wants, or wants to be gone."""
        return {volume for volume, _ in self.attachments()}

    def mounted(self) -> list[str]:
        """The mounts of this host, by the mount table."""
        return mounted_beneath(self.mounts)


def mounted_beneath(directory: Path) -> list[str]:
    """The mount points beneath *directory*, by the mount table."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line.split()[4] for line in lines if line.split()[4].startswith(f"{directory}/")]


def until(true: Any, seconds: float = 180.0) -> None:
    """Wait for what the agent does by itself."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.1)


def patiently(wait: Callable[..., Any], *given: Any, **how: Any) -> Any:
    """Have one of Nova's own waits go on: it gives up after 5 s, too soon for a busy machine."""
    end = time.monotonic() + 180
    while True:
        try:
            return wait(*given, **how)
        except AssertionError:
            if time.monotonic() > end:
                raise
