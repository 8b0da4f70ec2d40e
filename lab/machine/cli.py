"""``python -m lab machine``: see lab/README.md."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lab.images import cache
from lab.machine import container, operations, tree, virtual
from lab.machine.container import Machine
from lab.machine.tree import RELEASES, Unavailable

PID = "pid"
"""In a machine's directory: of the process that it is for."""


def add_to(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser("machine", help="a whole Debian machine with its own systemd")
    release = argparse.ArgumentParser(add_help=False)
    release.add_argument("--release", choices=sorted(RELEASES), default="debian13")
    fresh = argparse.ArgumentParser(add_help=False)
    fresh.add_argument("--bare", action="store_true", help="do not install Moorline in it")
    deeds = parser.add_subparsers(dest="deed", required=True)
    deeds.add_parser("build", parents=[release], help="build the tree that it boots from")
    run = deeds.add_parser("run", parents=[release, fresh], help="run a command in a fresh one")
    run.add_argument(
        "--virtual", action="store_true", help="with its own kernel, in QEMU, and real storage"
    )
    run.add_argument("command", nargs="+", metavar="COMMAND")
    deeds.add_parser("shell", parents=[release, fresh], help="a shell in a fresh one")
    deeds.add_parser("list", help="name those that run")
    for deed, help in (
        ("cut", "take the power of one that runs"),
        ("reboot", "reboot one that runs"),
        ("stop", "switch off one that runs"),
    ):
        deeds.add_parser(deed, help=help).add_argument("name", metavar="MACHINE")


def run(args: argparse.Namespace) -> int:
    try:
        return _DEEDS[args.deed](args)
    except Unavailable as e:
        raise SystemExit(f"lab: no machine can be had here: {e}") from e


def _build(args: argparse.Namespace) -> int:
    print(tree.build(args.release))
    return 0


def _run(args: argparse.Namespace) -> int:
    if args.virtual:
        return _run_virtual(args.release, shlex.join(args.command))
    with container.machine(args.release) as machine:
        _begin(machine, args.bare)
        return _attend(machine, args.command)


def _run_virtual(release: str, command: str) -> int:
    with virtual.machine(release) as machine:
        machine.start()
        ran = machine.run(command, code=None, deadline=3600)
        sys.stdout.write(ran.stdout)
        sys.stderr.write(ran.stderr)
        return ran.returncode


def _shell(args: argparse.Namespace) -> int:
    """A shell; when the machine went down under it, a new one after the boot."""
    with container.machine(args.release) as machine:
        _begin(machine, args.bare)
        print(f"lab: this is {machine.name}; `exit` ends and removes it", file=sys.stderr)
        while True:
            code = _attend(machine, ["bash", "--norc", "-i"])
            if not machine.gone(within=10 if code else 0):
                return code
            print(f"lab: {machine.name} went down; it boots again", file=sys.stderr)
            machine.start()


def _begin(machine: Machine, bare: bool) -> None:
    (machine.directory / PID).write_text(str(os.getpid()))
    machine.start()
    if not bare:
        operations.install(machine)


def _attend(machine: Machine, command: Sequence[str]) -> int:
    scope = ["systemd-run", "--scope", "--quiet", "--collect", "--slice=user.slice", "--"]
    return subprocess.call(machine.entering([*scope, "env", "-C", container.SOURCE, *command]))


def _list(args: argparse.Namespace) -> int:
    for directory in sorted(cache().glob("machine-*")):
        if (directory / PID).exists():
            print(directory.name)
    return 0


def _tell(args: argparse.Namespace) -> int:
    directory = cache() / Path(args.name).name
    try:
        owner = int((directory / PID).read_text())
        init = container.init_of(owner)
    except (OSError, ValueError, container.Down) as e:
        raise SystemExit(f"lab: no machine {args.name} runs") from e
    if args.deed == "cut":
        os.kill(init, signal.SIGKILL)  # its namespace's process 1: the kernel ends all of it
        return 0
    verb = "reboot" if args.deed == "reboot" else "poweroff"
    return subprocess.call(container.entering(init, ["systemctl", "--no-block", verb]))


_DEEDS = {
    "build": _build,
    "run": _run,
    "shell": _shell,
    "list": _list,
    "cut": _tell,
    "reboot": _tell,
    "stop": _tell,
}
