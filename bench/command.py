"""The command from the shell, beside ``virsh`` and a bare interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import Any

from bench.attach import detach, disk_xml
from bench.measure import Milliseconds, Result, paired, slower
from lab import guest as guests
from lab import host
from lab.agent import Agent
from lab.command import Moorline

NAMES = ("list", "command", "help", "alone")
ROUNDS = 15
LIST, ATTACH = 2.2, 2.0
"""With an agent, as ratios to virsh."""
HELP, ALONE = 60.0, 200.0
"""Milliseconds: ``--help``, and ``list`` without an agent."""
# What pip installs is compiled: so is what is measured, in the first round, which does not count.
_ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
_ENVIRONMENT["PYTHONPYCACHEPREFIX"] = str(host.LAB / "bytecode")
_NOTHING = [sys.executable, "-c", "pass"]
_MOORLINE = str(Path(sys.executable).with_name("moorline"))


def run(connection: Any, wanted: Set[str]) -> Iterator[Result]:
    """What is *wanted* of :data:`NAMES`, in a lab host."""
    if "help" in wanted:
        yield _alone("`moorline --help`", [_MOORLINE, "--help"], HELP)
    if not wanted - {"help"}:
        return
    with tempfile.TemporaryDirectory(dir=host.LAB) as directory:
        state = Path(directory) / "state"
        agent = Agent(Moorline(state), Path(directory) / "log")
        try:
            if wanted & {"list", "command"}:
                yield from _beside_virsh(connection, agent, state, Path(directory), wanted)
        finally:
            agent.stop()
        if "alone" in wanted:
            listing = [_MOORLINE, "list", "--state-dir", state]
            yield _alone("`moorline list`, no agent", listing, ALONE)


def _beside_virsh(
    connection: Any, agent: Agent, state: Path, where: Path, wanted: Set[str]
) -> Iterator[Result]:
    (guest,) = guests.boot(connection, ["command"], host.images(), host.SOCKETS)
    where.chmod(0o755)
    for name in ("kept", "ours", "raw"):
        with (where / f"{name}.raw").open("wb") as file:
            file.truncate(1 << 20)
        (where / f"{name}.raw").chmod(0o666)
    device = where / "raw.xml"
    device.write_text(disk_xml(where / "raw.raw", "sdx", "command-raw"))

    def typed(volume: str) -> list[Any]:
        options = ["--format", "raw", "--volume", volume, "--bus", "scsi", "--state-dir", state]
        return [_MOORLINE, "attach", guest.name, where / f"{volume}.raw", *options]

    def ours() -> float:
        took = _took(typed("ours"))
        agent.client.attachments.detach(guest.name, "ours")
        return took

    def raw() -> float:
        took = _took(["virsh", "attach-device", guest.name, device, "--live", "--config"])
        detach(guest.domain, "ua-command-raw")
        return took

    _took(typed("kept"))
    try:
        listing = [_MOORLINE, "list", "--state-dir", state]
        if "list" in wanted:
            yield slower(
                "`moorline list`, an agent answers (raw: `virsh list`)",
                *paired(ROUNDS, lambda: _took(["virsh", "list"]), lambda: _took(listing)),
                LIST,
            )
        if "command" in wanted:
            yield slower(
                "`moorline attach`, an agent answers (raw: `virsh attach-device`)",
                *paired(ROUNDS, raw, ours),
                ATTACH,
            )
    finally:
        agent.client.attachments.detach(guest.name, "kept")
        guests.remove(guest)


def _alone(what: str, command: Sequence[Any], most: float) -> Result:
    raw, ours = paired(ROUNDS, lambda: _took(_NOTHING), lambda: _took(command))
    goal = f"≤ {most:.0f} ms"
    return Result(
        f"{what} (raw: `python -c pass`)", ours, raw, "ms", ours / raw, goal, ours <= most
    )


def _took(command: Sequence[Any]) -> Milliseconds:
    """How long a command that must work took, and its own processor time."""
    start = time.perf_counter()
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL, env=_ENVIRONMENT)
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"{command} exited {process.returncode}"
    return Milliseconds(wall * 1000, (used.ru_utime + used.ru_stime) * 1000)
