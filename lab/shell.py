"""A shell on a lab host with two guests and a share: where README and tutorial can be tried.

``web01`` and ``web02`` run; the Quobyte volume ``vm-disks`` (registries ``reg1``
and ``reg2``) has ``data.qcow2`` and ``logs.raw``, and ``/srv/disks`` has
``scratch.raw``. ``guest NAME COMMAND`` runs a command inside a guest.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lab import guest, host
from lab.quobyte.cluster import Quobyte

GUESTS = ("web01", "web02")
DISKS = Path("/srv/disks")
COMMANDS = host.LAB / "bin"
PASSWORD_HELPER = Path("/usr/bin/pkttyagent")
"""Of virsh on a terminal: it can but complain on a host without D-Bus."""
ASK = """#!/bin/sh
exec {python} -m lab guest "$@"
"""


def run(command: Sequence[str]) -> int:
    """Furnish a host and run *command* (default: a shell) in it."""
    if not host.inside():
        return host.enter([sys.executable, "-m", "lab", "shell", "--", *command])
    furnish()
    return subprocess.call(
        list(command) or ["bash", "--norc", "-i"],
        cwd=host.LAB,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{COMMANDS}:{os.environ['PATH']}",
            "PS1": "# ",
        },
    )


def furnish() -> None:
    """Boot the guests, and make what the examples name."""
    import libvirt

    share = Quobyte(host.LAB).volume("vm-disks")
    _image(share.path / "data.qcow2", "qcow2")
    _image(share.path / "logs.raw", "raw")
    (host.LAB / "logs.json").write_text(
        json.dumps(share.connection("logs.raw", volume_id="1f2a9c1e-5b7d-4e21-9a68-0c1d2e3f4a5b"))
    )
    subprocess.run(["mount", "-t", "tmpfs", "lab-srv", "/srv"], check=True)
    DISKS.mkdir()
    _image(DISKS / "scratch.raw", "raw")
    COMMANDS.mkdir()
    ask = COMMANDS / "guest"
    ask.write_text(ASK.format(python=sys.executable))
    ask.chmod(0o755)
    if PASSWORD_HELPER.exists():
        subprocess.run(["mount", "--bind", "/dev/null", str(PASSWORD_HELPER)], check=True)
    guest.boot(libvirt.open("qemu:///system"), GUESTS, host.images(), host.SOCKETS)


def ask_guest(name: str, command: str) -> int:
    """Run *command* in the guest *name*; print what it prints, return its code."""
    answer = guest.GuestAgent(host.SOCKETS / f"{name}.agent").run(command)
    print("\n".join(answer.lines))
    return answer.code


def _image(path: Path, format: str) -> None:
    subprocess.run(["qemu-img", "create", "-q", "-f", format, str(path), "64M"], check=True)
