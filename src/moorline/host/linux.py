"""Implements the host port on Linux; the only module that starts processes."""

from __future__ import annotations

import ctypes
import fcntl
import logging
import os
import select
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from moorline.deadline import Deadline
from moorline.errors import Busy, Failed, Uncertain
from moorline.host.command_failed import CommandFailed
from moorline.host.command_output import captured, text_of, told
from moorline.host.forkserver.client import Calls
from moorline.host.image.files import read as files_read
from moorline.host.mount import table as mounts
from moorline.host.mount.fuse_clients import clients, has_ended, process_namespace
from moorline.host.mount.other_namespaces import only_serves, seen_at
from moorline.host.mount.users import users_of
from moorline.host.other_user import identity
from moorline.host.paths import places
from moorline.host.probe.pool import PROBE_DEADLINE_SECONDS, Probe
from moorline.host.systemd_scope import scope
from moorline.model import Format
from moorline.ports import (
    Call,
    CheckedFile,
    CheckedImage,
    Command,
    FilesOf,
    Images,
    IsIts,
    Mount,
    Output,
    Root,
)
from moorline.ports.host import OpenAs

_log = logging.getLogger(__name__)

_KILL_SECONDS = 1.0
_PR_SET_PDEATHSIG = 1
_START_TIMEOUT_SECONDS = 30.0
_BEGIN_POLL_SECONDS = 0.05
"""Seconds between two glances at whether a child has begun to look, once a deadline is over."""
_HOLD_CHECK_SECONDS = 5.0
"""Seconds to wait for processes that only check a hold, and lock it shared for a moment."""


class Linux:
    """Implements :class:`moorline.ports.Host`. Safe to use from several threads.

    *look_deadline*: seconds that a share has to answer. *systemd*: whether
    daemons get a scope of their own; None: if systemd runs (sd_booted(3)) and
    we are root. Needs Linux 5.3 (pidfd_open).
    """

    def __init__(
        self, *, look_deadline: float = PROBE_DEADLINE_SECONDS, systemd: bool | None = None
    ) -> None:
        if systemd is None:
            # Others than root would need a session bus, which services have not.
            systemd = Path("/run/systemd/system").is_dir() and os.geteuid() == 0
        self._systemd = systemd
        self._abandoned: list[subprocess.Popen[bytes]] = []
        self._probe = Probe(_ProbeChild, deadline=look_deadline, incarnation=mounts.ids_at)
        self._calls = Calls(_warm)

    def close(self) -> None:
        """End our children. Daemons that commands started stay, and calls under way go on."""
        self._calls.close()
        self._probe.close()

    def run(self, command: Command) -> Output:
        """See :meth:`moorline.ports.Host.run`; Failed is CommandFailed if it ran.

        Its output goes to files, not pipes, so that a daemon which it leaves behind with its
        output open does not keep us waiting; later it writes into a sealed file.
        """
        self._abandoned = [child for child in self._abandoned if child.poll() is None]
        program = command.argv[0]
        with ExitStack() as stack:
            held = [stack.enter_context(_locked(command.hold))] if command.hold else []
            given = command.stdin
            stdin = stack.enter_context(told(given)) if given else subprocess.DEVNULL
            stdout, stderr = (stack.enter_context(captured()) for _ in range(2))
            argv = self._argv(command)
            _log.debug("runs: %s", shlex.join(argv))
            child = _start(
                argv,
                program=program,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                pass_fds=held,
                **({} if self._scoped(command) else identity(command.user)),
            )
            if not _ended(child, command.deadline):
                self._kill(child)
                raise Uncertain(f"{program} did not end within {command.deadline:g} s")
            output = Output(text_of(stdout, command.stdin), text_of(stderr, command.stdin))
        status = child.wait()
        _log.debug("%s ended with %d", program, status)
        if status:
            raise CommandFailed(program, status, output.stderr)
        return output

    def held(self, hold: Path) -> bool:
        """See :meth:`moorline.ports.Host.held`."""
        try:
            file = os.open(hold, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return False
        try:
            return not _flock(file, fcntl.LOCK_SH)
        finally:
            os.close(file)

    def only_serves(self, hold: Path, at: Path, is_its: IsIts) -> bool:
        """See :meth:`moorline.ports.Host.only_serves`."""
        return only_serves(hold, at, is_its)

    def elsewhere(self, at: Path) -> Sequence[str]:
        """See :meth:`moorline.ports.Host.elsewhere`."""
        return seen_at(at)

    def call(self, call: Call) -> Mapping[str, Any]:
        """See :meth:`moorline.ports.Host.call`."""
        _log.debug("calls %s.%s", call.module, call.name)
        with ExitStack() as stack:
            held = [stack.enter_context(_locked(call.hold))] if call.hold else []
            return self._calls.call(call, held)

    def mounts(self) -> Sequence[Mount]:
        """See :meth:`moorline.ports.Host.mounts`."""
        return mounts.read()

    def clients(self, mount: Mount) -> Sequence[str] | None:
        """See :meth:`moorline.ports.Host.clients`."""
        return clients(mount, mounts.read())

    def has_ended(self, mount: Mount) -> bool:
        """See :meth:`moorline.ports.Host.has_ended`."""
        return has_ended(mount)

    def root(self, path: Path, *, list: bool = False) -> Root:
        """See :meth:`moorline.ports.Host.root`."""
        answer = self._probe.ask(str(path), {"ask": "root", "path": str(path), "list": list})
        return _root(answer)

    def users_of(self, path: Path) -> Sequence[str]:
        """See :meth:`moorline.ports.Host.users_of`."""
        return users_of(path)

    def image(self, share: Path, name: str, format: Format) -> CheckedImage:
        """See :meth:`moorline.ports.Host.image`."""
        what = {"share": str(share), "name": name, "format": format}
        answer = self._probe.ask(str(share), {"ask": "image", **what})
        files = [CheckedFile(**{**file, "path": Path(file["path"])}) for file in answer["files"]]
        return CheckedImage(_root(answer["root"]), files)

    def files(
        self,
        share: Path,
        images: Images,
        like: Collection[int] | None = None,
        *,
        first: bool = False,
    ) -> Sequence[FilesOf]:
        """See :meth:`moorline.ports.Host.files`."""
        to = {"images": list(images), "like": like if like is None else list(like), "first": first}
        return files_read(self._probe.ask(str(share), {"ask": "files", **to})["files"], images)

    def size(self, path: Path, format: str = "raw") -> int:
        """See :meth:`moorline.ports.Host.size`."""
        question = {"ask": "size", "path": str(path), "format": format}
        return int(self._probe.ask(str(path.parent), question)["size"])

    def openable(self, path: Path, use: OpenAs) -> None:
        """See :meth:`moorline.ports.Host.openable`."""
        question = {"ask": "opening", "path": str(path), **asdict(use)}
        if not self._probe.ask(str(path.parent), question)["free"]:
            by = ", ".join(users_of(path))
            raise Busy(f"another process has locked {path}" + (f": {by}" if by else ""))

    def places(self, paths: Iterable[str]) -> Mapping[str, frozenset[str] | None]:
        """See :meth:`moorline.ports.Host.places`."""
        return places(paths, self.mounts(), self._follow)

    def _follow(self, share: str, asked: Sequence[str], stops: Collection[str]) -> Sequence[str]:
        question = {"ask": "follow", "paths": asked, "stops": sorted(stops)}
        real: Sequence[str] = self._probe.ask(share, question)["real"]
        return real

    def readable(self, path: Path, user: int, group: int) -> bool:
        """See :meth:`moorline.ports.Host.readable`."""
        question = {"ask": "readable", "path": str(path), "user": user, "group": group}
        return bool(self._probe.ask(str(path.parent), question)["readable"])

    def _scoped(self, command: Command) -> bool:
        return command.outlives and self._systemd

    def _argv(self, command: Command) -> Sequence[str]:
        return scope(command) if self._scoped(command) else command.argv

    def _kill(self, child: subprocess.Popen[bytes]) -> None:
        # It leads a session and is not reaped yet, so the group is still its own.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        if _ended(child, _KILL_SECONDS):
            child.wait()
        else:  # it is in an uninterruptible call of the kernel, and dies when that returns
            self._abandoned.append(child)


def _root(answer: Mapping[str, Any]) -> Root:
    return Root(answer["size"], answer["device"], answer["empty"], Path(answer["path"]))


def fork(do: Callable[[], None]) -> int:
    """Run *do* in a fork that leads a session and is killed when we end; return its id.

    Only for a process with one thread: in a fork, locks of other threads stay locked.
    """
    parent = os.getpid()
    if pid := os.fork():
        return pid
    _be_fork(do, parent)


def _be_fork(do: Callable[[], None], parent: int) -> NoReturn:
    try:
        os.setsid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() == parent:  # our parent may have ended before the request took effect
            do()
    finally:
        os._exit(0)


def become(argv: Sequence[str]) -> NoReturn:
    """Go on as another program, in a process that :meth:`Linux.run` started. Raises OSError."""
    os.execvp(argv[0], [*argv])  # noqa: S606 - arguments, no shell line


def _warm(module: str, control: socket.socket) -> subprocess.Popen[bytes]:
    """Start a process that keeps *module* imported (:mod:`moorline.host.forkserver.server`)."""
    return _start(
        [sys.executable, "-P", "-m", "moorline.host.forkserver.server", module],
        program=sys.executable,
        stdin=control.fileno(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _start(argv: Sequence[str], *, program: str, **how: Any) -> subprocess.Popen[bytes]:
    """Start a process in its own session, so that it and its group can be killed."""
    try:
        return subprocess.Popen(argv, start_new_session=True, cwd="/", **how)
    except FileNotFoundError as e:
        raise Failed(f"there is no command {program}", hint="is its package installed?") from e
    except (OSError, ValueError) as e:
        raise Failed(f"{program} cannot be started: {e}") from e


def _ended(child: subprocess.Popen[bytes], deadline: float) -> bool:
    """Wait for the end of a process, without reaping it.

    Not ``Popen.wait``, which sleeps up to 50 ms too long with a time-out.
    """
    file = os.pidfd_open(child.pid)
    try:
        poll = select.poll()
        poll.register(file, select.POLLIN)
        return bool(poll.poll(deadline * 1000))
    finally:
        os.close(file)


@contextmanager
def _locked(hold: Path) -> Iterator[int]:
    """Lock *hold*, for us and for all who inherit the descriptor. Raises Busy, Failed."""
    try:
        file = os.open(hold, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as e:
        raise Failed(f"{hold} cannot be opened: {e.strerror}") from e
    try:
        _lock(file, hold)
        with suppress(OSError):  # then it cannot be told where its client lives
            os.ftruncate(file, 0)
            os.pwrite(file, process_namespace().encode(), 0)
        yield file
    finally:
        os.close(file)


def _lock(file: int, hold: Path) -> None:
    deadline = Deadline(_HOLD_CHECK_SECONDS)
    while not _flock(file, fcntl.LOCK_EX):
        # A check whether it is held locks it shared, for a moment; a command locks it exclusively.
        if not _flock(file, fcntl.LOCK_SH) or deadline.over():
            raise Busy(f"a command that holds {hold} still runs")
        fcntl.flock(file, fcntl.LOCK_UN)
        deadline.sleep(0.002)


def _flock(file: int, how: int) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(file, how | fcntl.LOCK_NB)
        return True
    return False


class _ProbeChild:
    """A child that looks at shares (:mod:`moorline.host.probe.child`)."""

    def __init__(self) -> None:
        self._begun = os.memfd_create("begun", os.MFD_CLOEXEC)
        """Where it writes when it begins to look: nobody is woken by that."""
        self._read = b""
        self._child = _start(
            # -P: nothing is imported from the current directory.
            [sys.executable, "-P", "-m", "moorline.host.probe.child", str(self._begun)],
            program=sys.executable,
            pass_fds=[self._begun],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        assert self._child.stdout
        self._answers = select.poll()
        self._answers.register(self._child.stdout, select.POLLIN)
        try:
            # The time that Python takes to start must not count against the share's deadline.
            self._line(Deadline(_START_TIMEOUT_SECONDS))
        except (EOFError, TimeoutError) as e:
            self.kill()
            raise Failed("the process that looks at shares does not start") from e

    def ask(self, question: bytes, deadline: float) -> bytes:
        assert self._child.stdin
        asked, start = time.monotonic(), Deadline(_START_TIMEOUT_SECONDS)
        try:
            self._child.stdin.write(question)
        except BrokenPipeError as e:
            raise EOFError from e
        left = deadline
        while True:
            try:
                return self._line(Deadline(left))
            except TimeoutError:
                waited = time.monotonic() - asked
                looked = time.monotonic() - self._begun_last()
                if looked > waited:  # it still imports, or waits for a processor
                    if start.over():
                        raise EOFError from None
                    left = _BEGIN_POLL_SECONDS
                elif (left := deadline - looked) <= 0:
                    raise

    def kill(self) -> None:
        self._child.kill()
        for pipe in filter(None, (self._child.stdin, self._child.stdout)):
            pipe.close()
        if self._begun >= 0:
            os.close(self._begun)
            self._begun = -1

    def gone(self) -> bool:
        return self._child.poll() is not None

    def _begun_last(self) -> float:
        """When it last began to look, by the monotonic clock; 0: it never did."""
        return float(os.pread(self._begun, 64, 0) or 0)

    def _line(self, deadline: Deadline) -> bytes:
        """Return the next line. Raises TimeoutError (what was read of it is kept), EOFError."""
        assert self._child.stdout
        while not self._read.endswith(b"\n"):
            if not self._answers.poll(deadline.left() * 1000):
                raise TimeoutError
            if not (more := self._child.stdout.read(select.PIPE_BUF * 16)):
                raise EOFError
            self._read += more
        line, self._read = self._read, b""
        return line
