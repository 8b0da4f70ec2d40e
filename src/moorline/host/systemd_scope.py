"""Runs a share's client in a systemd scope, so that it outlives us and stops after the guests."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from moorline.host.other_user import user_named
from moorline.ports import Command

SLICE = "moorline.slice"
AFTER_GUESTS = ("libvirt-guests.service", "virt-guest-shutdown.target", "machine.slice")
"""Units that must stop before a client does: units stop in the reverse of the order in which
they start (systemd.unit(5)). libvirt-guests asks guests to shut down, and those sync their disks
then; QEMU's own scopes lie in machine.slice, and the target ends between the two."""
NETWORK = "network-online.target"


def scope(command: Command) -> Sequence[str]:
    """The command that runs *command* in a scope of its own. Raises Failed (no such user)."""
    words = ["systemd-run", "--scope", "--quiet", "--collect"]
    words += [f"--unit={_name(command)}", f"--slice={SLICE}"]
    words += [f"--property=Before={' '.join(AFTER_GUESTS)}", f"--property=After={NETWORK}"]
    if command.user:
        user = user_named(command.user)
        words += [f"--uid={user.pw_uid}", f"--gid={user.pw_gid}"]
    return [*words, "--", *command.argv]


def _name(command: Command) -> str:
    """The scope's name, with the time: an earlier client of the share may still have a scope."""
    of = command.hold.name.removesuffix(".lock") if command.hold else command.argv[0]
    return f"moorline-{re.sub(r'[^A-Za-z0-9_.]+', '-', of)[-100:]}-{time.time_ns():x}.scope"
