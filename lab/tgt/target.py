"""An iSCSI server on loopback: tgtd, with CHAP. It needs a private host."""

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
from lab.host import LAB

PORTAL = "127.0.0.3:3260"
USER, PASSWORD = "moor", "twelve-chars-xx"
_START_SECONDS = 60.0


class Missing(Exception):
    """The machine lacks something; the text says what."""


class Tgt:
    """A server, from ``with`` to its end: :meth:`export` gives it volumes. Raises Missing."""

    def __init__(self) -> None:
        if not all(map(shutil.which, ("tgtd", "tgtadm"))):
            raise Missing("there is no tgtd (tgt)")
        if not list(Path("/usr/lib").glob("*/qemu/block-iscsi.so")):
            raise Missing("QEMU has no iSCSI here (qemu-block-extra)")
        self._directory = LAB / "tgt"
        self._targets: dict[str, tuple[int, Path]] = {}
        self._bound: set[int] = set()

    def __enter__(self) -> Tgt:
        self._directory.mkdir()
        self._begin()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
        shutil.rmtree(self._directory)

    def export(self, name: str, size: int, *, chap: bool = True, of: Path | None = None) -> Path:
        """Have LUN 1 of a target of this name be a new file, or another's; return the file."""
        file = of or self._directory / name
        if of is None:
            with file.open("wb") as made:
                made.truncate(size)
        self._targets[iqn(name)] = (len(self._targets) + 1, file)
        if chap:
            self._bound.add(len(self._targets))
        self._define(iqn(name))
        return file

    def listen(self, portal: str) -> None:
        """Be reached by another address as well, until it is started anew."""
        self._tgtadm("portal", "new", "--param", f"portal={portal}")

    def file(self, name: str) -> Path:
        """What holds the volume's bytes."""
        return self._targets[iqn(name)][1]

    def sessions(self, name: str) -> list[str]:
        """The initiators that are logged in."""
        id = str(self._targets[iqn(name)][0])
        said = self._tgtadm("conn", "show", "--tid", id)
        return [line.split()[-1] for line in said.splitlines() if "Session" in line]

    # --- what happens to it ---

    def kill(self) -> None:
        for pid in processes.running("tgtd"):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
            processes.kill(pid)

    def start(self) -> None:
        """Start it anew, with what it had."""
        self._begin()
        for name in self._targets:
            self._define(name)

    def stop(self) -> None:
        """Have it answer nothing, and close nothing, until :meth:`resume`."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    # --- how ---

    def _begin(self) -> None:
        subprocess.run(["tgtd", "--iscsi", f"portal={PORTAL}"], check=True, timeout=60)
        _until(lambda: self._ran("sys", "show").returncode == 0)
        self._tgtadm("account", "new", "--user", USER, "--password", PASSWORD)

    def _define(self, target: str) -> None:
        id, file = self._targets[target]
        at = ("--tid", str(id))
        self._tgtadm("target", "new", *at, "--targetname", target)
        self._tgtadm("logicalunit", "new", *at, "--lun", "1", "--backing-store", str(file))
        known = f"scsi_sn={file.name[:30]}"
        self._tgtadm("logicalunit", "update", *at, "--lun", "1", "--params", known)
        if id in self._bound:
            self._tgtadm("account", "bind", *at, "--user", USER)
        self._tgtadm("target", "bind", *at, "--initiator-address", "ALL")

    def _tgtadm(self, mode: str, operation: str, *more: str) -> str:
        ran = self._ran(mode, operation, *more)
        assert ran.returncode == 0, f"tgtadm {mode} {operation}: {ran.stdout}{ran.stderr}"
        return ran.stdout

    def _ran(self, mode: str, operation: str, *more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["tgtadm", "--lld", "iscsi", "--mode", mode, "--op", operation, *more],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_START_SECONDS,
            check=False,
        )

    def _signal(self, number: int) -> None:
        for pid in processes.running("tgtd"):
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def iqn(name: str) -> str:
    return f"iqn.2026-01.lab:{name}"


def _until(true: Callable[[], object]) -> None:
    end = time.monotonic() + _START_SECONDS
    while not true():
        assert time.monotonic() < end, "tgtd does not come to it"
        time.sleep(0.02)
