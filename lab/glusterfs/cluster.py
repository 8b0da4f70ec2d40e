"""A GlusterFS server on loopback, and a volume of one brick: glusterd, glusterfsd, glusterfs.

The programs are the distribution's own. What is different from real ones: server and client share
a machine. It needs a private host, where what glusterd keeps and writes is nobody else's.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from lab import processes
from lab.host import GLUSTERFS, LAB, real_path

SERVER = "127.0.0.2"
"""glusterd refuses to have a brick on localhost; all of 127.0.0.0/8 leads to it."""
NEEDED = ("glusterd", "gluster", "glusterfsd", "mount.glusterfs")
_START_SECONDS = 60.0
"""For a machine that others use too: a second is usual."""


class Missing(Exception):
    """The machine lacks something; the text says what."""


class GlusterVolume:
    """A started volume, from ``with`` to its end. Raises Missing."""

    def __init__(self, name: str = "vols") -> None:
        self.environment = {**os.environ, "PATH": real_path()}
        self.name = name
        self._directory = LAB / "glusterfs"
        self.files = self._directory / "brick"
        """The brick: the volume's files, behind the back of every mount."""
        for command in NEEDED:
            if shutil.which(command, path=real_path()) is None:
                raise Missing(f"there is no {command} (glusterfs-server)")

    def __enter__(self) -> GlusterVolume:
        self._directory.mkdir()
        subprocess.run(["glusterd", "-p", str(self._pid_file)], env=self.environment, check=True)
        until(lambda: self._succeeds("pool", "list"))
        self._gluster("volume", "create", self.name, f"{SERVER}:{self.files}", "force")
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for program in ("glusterd", "glusterfsd", "glusterfs"):
            self._kill(program)
        shutil.rmtree(self._directory)
        for directory in GLUSTERFS:
            for each in directory.iterdir():
                shutil.rmtree(each) if each.is_dir() else each.unlink()

    def export(self) -> str:
        """How a connection names the volume."""
        return f"{SERVER}:/{self.name}"

    def disk(self, name: str, size: int) -> Path:
        """Make a file as a client would, and return it as it is on the brick."""
        at = self._directory / "maker"
        at.mkdir()
        mount = ["mount.glusterfs", self.export(), str(at)]
        subprocess.run(mount, env=self.environment, check=True, stdin=subprocess.DEVNULL)
        (at / name).touch()
        os.truncate(at / name, size)
        subprocess.run(["umount", at], check=True)
        at.rmdir()
        until(lambda: not self.clients())
        return self.files / name

    def clients(self) -> list[int]:
        """The processes that serve mounts of the volume."""
        return processes.running("glusterfs", self._id)

    # --- what happens to it ---

    def start(self) -> None:
        """Start the brick, anew if it was there before; return when it takes connections."""
        self._gluster("volume", "start", self.name, "force")

    def kill_brick(self) -> None:
        """Take the server away, as a crash would: clients notice it at once."""
        self._kill("glusterfsd")

    def stop_brick(self) -> None:
        """Have it answer nothing, and close nothing, until :meth:`continue_brick`."""
        self._signal("glusterfsd", signal.SIGSTOP)

    def continue_brick(self) -> None:
        self._signal("glusterfsd", signal.SIGCONT)

    def kill_client(self) -> None:
        """Kill what serves the mounts of the volume."""
        self._kill("glusterfs")

    # --- how ---

    @property
    def _id(self) -> str:
        return f"--volfile-id=/{self.name}"

    @property
    def _pid_file(self) -> Path:
        return self._directory / "glusterd.pid"

    def _gluster(self, *words: str) -> None:
        ran = self._ran(*words)
        assert ran.returncode == 0, f"gluster {' '.join(words)}: {ran.stdout}{ran.stderr}"

    def _succeeds(self, *words: str) -> bool:
        return self._ran(*words).returncode == 0

    def _ran(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["gluster", "--mode=script", *words],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_START_SECONDS,
            check=False,
        )

    def _kill(self, program: str) -> None:
        for pid in processes.running(program):
            processes.kill(pid)

    def _signal(self, program: str, number: int) -> None:
        for pid in processes.running(program):
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + _START_SECONDS
    while not true():
        assert time.monotonic() < end, "GlusterFS does not come to it"
        time.sleep(0.02)
