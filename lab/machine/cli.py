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
from lab.machine import console, container, operations, packages, tree, virtual
from lab.machine.container import Machine
from lab.machine.qga import GuestAgent, Silent
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
    fresh.add_argument(
        "--virtual", action="store_true", help="with its own kernel, in QEMU, and real storage"
    )
    package = deeds.add_parser("package", parents=[release], help="build its package of Moorline")
    package.add_argument("directory", type=Path, metavar="DIRECTORY", help="what gets the .deb")
    run = deeds.add_parser("run", parents=[release, fresh], help="run a command in a fresh one")
    run.add_argument("command", nargs="+", metavar="COMMAND")
    deeds.add_parser("shell", parents=[release, fresh], help="a shell in a fresh one")
    deeds.add_parser("list", help="name those that run")
    for deed, help in (
        ("cut", "take the power of one that runs"),
        ("reboot", "reboot one that runs"),
        ("stop", "switch off one that runs"),
    ):
        deeds.add_parser(deed, help=help).add_argument("name", metavar="MACHINE")
    network = deeds.add_parser("network", help="cut the network of one that runs, and mend it")
    network.add_argument("name", metavar="MACHINE")
    network.add_argument("state", choices=("off", "on"))
    clock = deeds.add_parser("clock", help="let the clock of a virtual one jump")
    clock.add_argument("name", metavar="MACHINE")
    clock.add_argument("seconds", type=int, metavar="SECONDS", help="-3600: an hour back")


def run(args: argparse.Namespace) -> int:
    if getattr(args, "virtual", False) and args.bare:
        raise SystemExit("lab: a virtual machine has Moorline in it; --bare is for containers")
    try:
        return _DEEDS[args.deed](args)
    except Unavailable as e:
        raise SystemExit(f"lab: no machine can be had here: {e}") from e


def _build(args: argparse.Namespace) -> int:
    print(tree.build(args.release))
    return 0


def _package(args: argparse.Namespace) -> int:
    print(packages.build(args.release, args.directory))
    return 0


def _run(args: argparse.Namespace) -> int:
    if args.virtual:
        return _run_virtual(args.release, shlex.join(args.command))
    with container.machine(args.release) as machine:
        _begin(machine, args.bare)
        return _attend(machine, args.command)


def _run_virtual(release: str, command: str) -> int:
    with virtual.machine(release) as machine:
        _named(machine.directory)
        machine.start()
        ran = machine.run(command, code=None, deadline=3600)
        sys.stdout.write(ran.stdout)
        sys.stderr.write(ran.stderr)
        return ran.returncode


def _shell(args: argparse.Namespace) -> int:
    """A shell; when the machine went down under it, a new one after the boot."""
    if args.virtual:
        return _shell_virtual(args.release)
    with container.machine(args.release) as machine:
        _begin(machine, args.bare)
        print(f"lab: this is {machine.name}; `exit` ends and removes it", file=sys.stderr)
        while True:
            code = _attend(machine, ["bash", "--norc", "-i"])
            if not machine.gone(within=10 if code else 0):
                return code
            print(f"lab: {machine.name} went down; it boots again", file=sys.stderr)
            machine.start()


def _shell_virtual(release: str) -> int:
    with virtual.machine(release) as machine:
        _named(machine.directory)
        machine.start()
        print(f"lab: this is {machine.name}; Ctrl-] ends and removes it", file=sys.stderr)
        while not console.join(machine.directory / virtual.SHELL):
            print(f"\nlab: {machine.name} went down; it boots again", file=sys.stderr)
            machine.cut()
            machine.start()
    return 0


def _named(directory: Path) -> None:
    """Let the other verbs find it."""
    (directory / PID).write_text(str(os.getpid()))


def _begin(machine: Machine, bare: bool) -> None:
    _named(machine.directory)
    machine.start()
    if not bare:
        operations.install(machine)


def _attend(machine: Machine, command: Sequence[str]) -> int:
    scope = ["systemd-run", "--scope", "--quiet", "--collect", "--slice=user.slice", "--"]
    return subprocess.call(machine.entering([*scope, "env", "-C", container.SOURCE, *command]))


def _list(args: argparse.Namespace) -> int:
    for directory in sorted(cache().iterdir()):
        if directory.name.startswith(("machine-", "virtual-")) and (directory / PID).exists():
            print(directory.name)
    return 0


def _tell(args: argparse.Namespace) -> int:
    directory = cache() / Path(args.name).name
    told = _tell_virtual if directory.name.startswith("virtual-") else _tell_container
    try:
        return told(directory, args)
    except (OSError, ValueError, container.Down, Silent) as e:
        raise SystemExit(f"lab: no machine {args.name} runs") from e


def _tell_container(directory: Path, args: argparse.Namespace) -> int:
    owner = int((directory / PID).read_text())
    init = container.init_of(owner)
    if args.deed == "cut":
        os.kill(init, signal.SIGKILL)  # its namespace's process 1: the kernel ends all of it
        return 0
    if args.deed == "clock":
        raise SystemExit("lab: a container has this machine's clock; a virtual one has its own")
    return subprocess.call(container.entering(init, _words(args)))


def _tell_virtual(directory: Path, args: argparse.Namespace) -> int:
    if args.deed == "cut":
        os.kill(int((directory / virtual.QEMU_PID).read_text()), signal.SIGKILL)
        return 0
    ran = GuestAgent(directory / virtual.AGENT).run(_words(args), container.ENVIRONMENT, 60)
    sys.stderr.write(ran.stderr)
    return ran.returncode


def _words(args: argparse.Namespace) -> list[str]:
    """The command that does the deed, in the machine."""
    if args.deed == "network":
        return ["ip", "link", "set", "lo", "up" if args.state == "on" else "down"]
    if args.deed == "clock":
        return ["sh", "-c", f"date -s @$(($(date +%s) + {args.seconds}))"]
    return ["systemctl", "--no-block", "reboot" if args.deed == "reboot" else "poweroff"]


_DEEDS = {
    "build": _build,
    "package": _package,
    "run": _run,
    "shell": _shell,
    "list": _list,
    "cut": _tell,
    "reboot": _tell,
    "stop": _tell,
    "network": _tell,
    "clock": _tell,
}
