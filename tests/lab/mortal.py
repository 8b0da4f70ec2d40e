"""Runs a ``moorline`` program that is killed by SIGKILL before or after one of its changes.

``python mortal.py PROGRAM ARGUMENTS…``, with MORTAL_AT naming the change, and MORTAL_FAULT the
moment. All of it is real; what can kill stands before what a renewal changes.
"""

from __future__ import annotations

import os
import re
import runpy
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import libvirt

from moorline.core.records import Records
from moorline.host.linux import Linux
from moorline.hypervisors.libvirt.monitor import Monitor
from moorline.testing.faults import Fault, Faults

Named = Callable[..., str]


def mortal(owner: type, method: str, name: Named, at: str, fault: Fault) -> None:
    """Have *method* of *owner* kill this process at the first call that is named *at*."""
    real = getattr(owner, method)
    faults = Faults(die=lambda: os.kill(os.getpid(), signal.SIGKILL))
    faults.plan((0, fault))

    def called(self: Any, *args: Any, **named: Any) -> Any:
        if name(*args, **named) != at:
            return real(self, *args, **named)
        return faults.effect(lambda: real(self, *args, **named))

    setattr(owner, method, called)


def _of_call(call: Any) -> str:
    """Without the number that libvirt gave."""
    node = call.arguments.get("node-name") or call.arguments.get("value")
    return re.sub(r"-\d+", "", f"{call.command} {node}")


def _of_record(key: Any, renewal: Any) -> str:
    if renewal is None:
        return "record: over"
    if renewal.let_go:
        return "record: let go"
    return f"record: {'done' if renewal.done else 'file' if renewal.inode else 'death'}"


def _of_command(command: Any) -> str:
    return Path(command.argv[0]).name


def _of_resume() -> str:
    return "resume"


if __name__ == "__main__":
    of = (os.environ["MORTAL_AT"], Fault[os.environ["MORTAL_FAULT"]])
    mortal(Monitor, "change", _of_call, *of)
    mortal(Records, "note_renewal", _of_record, *of)
    mortal(Linux, "run", _of_command, *of)
    mortal(libvirt.virDomain, "resume", _of_resume, *of)
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
