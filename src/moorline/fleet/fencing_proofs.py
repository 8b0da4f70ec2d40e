"""Proofs that a host cannot write any more: a person's word, and commands that see to it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from moorline.core.validation import check_reason
from moorline.errors import Refused
from moorline.fleet.fencing import Proof
from moorline.ports import Command, Host
from moorline.secret import Secret

FENCING_SECONDS = 120.0
"""For a fence agent, which switches off and looks whether that worked."""


def word(of: str) -> Proof:
    """Somebody says so: *of* tells who and how. Raises Refused if it tells nothing."""
    check_reason(of)
    return lambda: of.strip()


def fence_agent(host: Host, agent: Path, options: Sequence[str]) -> Proof:
    """Have one of the fence-agents package, or its like, switch a host off.

    They read ``name=value`` a line from standard input, and exit 0 when it is done and seen to be
    (FenceAgentAPI; fence_ipmilan(8)). *options*: what it needs to find the host; they may hold a
    password. Raises Failed (it says that it did not), Uncertain (its deadline).
    """
    for option in options:
        if "=" not in option or not option.isprintable():
            raise Refused("an option of a fence agent is name=value")
        if option.partition("=")[0].strip() in ("action", "option"):
            raise Refused("the action of a fence agent is off: it is not chosen")
    lines = "\n".join([*options, "action=off", ""])

    def switch_off() -> str:
        host.run(Command((str(agent),), FENCING_SECONDS, stdin=Secret(lines)))
        return f"{agent.name} switched it off"

    return switch_off
