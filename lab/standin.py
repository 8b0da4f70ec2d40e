"""What every stand-in command does alike: find the lab, note the call, misbehave on request.

A product's directory in the lab holds ``calls.jsonl`` (who called what, when) and
``control.json``, which maps a volume's name, or ``*``, to how commands on it behave:

=========== =============================== =========================================
key         value                           effect
=========== =============================== =========================================
slow        seconds                         waits before doing anything
takes       seconds                         the same, less what starting the command took
gate        path                            waits until that file is there
hang        true                            never returns; does nothing
fail        {"code": n, "stderr": text}     fails so; does nothing
lie         true                            says that it worked; does nothing
slow_after  seconds                         waits after doing it, before returning
hang_after  true                            does it and never returns
fail_after  {"code": n, "stderr": text}     does it and says that it failed
=========== =============================== =========================================

These apply to mount commands; under a key ``umount`` the same apply to unmounting.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

Settings = dict[str, Any]


class Failure(Exception):
    """The command fails as a real one would: an exit code and a text on stderr."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Product:
    """A vendor's product as the lab directory describes it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.directory = Path(os.environ.get("MOORLINE_LAB") or "/run/moorline-lab") / name

    def read(self, name: str) -> Settings:
        try:
            settings: Settings = json.loads((self.directory / name).read_text())
        except FileNotFoundError:
            return {}
        return settings

    def control(self, volume: str) -> Settings:
        control = self.read("control.json")
        return {**control.get("*", {}), **control.get(volume, {})}

    def note(self, argv: Sequence[str]) -> None:
        call = {"argv": list(argv), "uid": os.geteuid(), "pid": os.getpid(), "time": time.time()}
        try:
            with (self.directory / "calls.jsonl").open("a") as file:
                file.write(json.dumps(call) + "\n")
        except FileNotFoundError as e:
            raise Failure(1, f"no {self.name} in this lab: {e}") from e


def act(control: Settings, deed: Callable[[], None]) -> None:
    """Do *deed*, with whatever *control* wants before, after or instead of it."""
    time.sleep(max(0.0, control.get("takes", 0) - _age()))
    while "gate" in control and not Path(control["gate"]).exists():
        time.sleep(0.05)
    _misbehave(control, "")
    if not control.get("lie"):
        deed()
        _misbehave(control, "_after")


def _age() -> float:
    """Seconds since this process was started."""
    started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")


def _misbehave(control: Settings, when: str) -> None:
    time.sleep(control.get(f"slow{when}", 0))
    while control.get(f"hang{when}"):
        time.sleep(60)
    if fail := control.get(f"fail{when}"):
        raise Failure(fail.get("code", 1), fail.get("stderr", "failed"))


def source_at(target: str) -> str | None:
    """The source of what is mounted at exactly this path, by the mount table (never blocks)."""
    source = None
    with Path("/proc/self/mountinfo").open() as table:
        for line in table:
            fields = line.split()
            if fields[4] == _escaped(target):
                source = fields[fields.index("-") + 2]  # the last is on top
    return source


def mounted(target: str) -> bool:
    return source_at(target) is not None


def _escaped(path: str) -> str:
    for char in "\\ \t\n":
        path = path.replace(char, f"\\{ord(char):03o}")
    return path


def mount(source: str, target: str, type_: str) -> None:
    """mount(2) of a file system that needs no daemon. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(os.fsencode(source), os.fsencode(target), type_.encode(), 0, None):
        raise _error(target)


def umount(target: str) -> None:
    """umount(2), or fusermount3(1) for a user. Raises OSError."""
    if os.geteuid():
        done = subprocess.run(["fusermount3", "-u", "--", target], capture_output=True, check=False)
        if done.returncode:
            raise OSError(errno.EPERM, done.stderr.decode().strip(), target)
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(target), 0):
        raise _error(target)


def _error(target: str) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code), target)


def run(command: Callable[[list[str]], None]) -> NoReturn:
    """Run *command* with our arguments; print a failure as a real client would, and exit."""
    name = Path(sys.argv[0]).name
    try:
        command(sys.argv[1:])
    except Failure as e:
        print(f"{name}: {e}", file=sys.stderr)
        sys.exit(e.code)
    except OSError as e:
        print(f"{name}: {e.filename}: {e.strerror}", file=sys.stderr)
        sys.exit(1)
    sys.exit(0)
