"""Speaks with a guest's QEMU by its monitor, through libvirt.

Facts: https://qemu.readthedocs.io/en/v7.2.0/interop/qemu-qmp-ref.html. libvirt marks a guest with
whose monitor somebody else spoke as tainted (``custom-monitor``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from moorline.errors import Failed
from moorline.hypervisors.libvirt.connection import Connection
from moorline.model import GuestId


@dataclass(frozen=True, slots=True)
class Call:
    """A command of the monitor's."""

    command: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def text(self) -> str:
        """As it goes over the wire."""
        return json.dumps({"execute": self.command, "arguments": self.arguments})


Say = Callable[[Any, str], str]
"""Says a text to the monitor of a domain, given libvirt's handle of it, and returns the answer."""


def say(domain: Any, text: str) -> str:
    """A :data:`Say` that does so."""
    import libvirt_qemu

    return str(libvirt_qemu.qemuMonitorCommand(domain, text, 0))


class Monitor:
    """The monitor of one running guest. *domain* finds libvirt's handle of it."""

    def __init__(
        self, connection: Connection, guest: GuestId, domain: Callable[[Any], Any], say: Say
    ) -> None:
        self._connection = connection
        self._guest = guest
        self._domain = domain
        self._say_to = say

    def ask(self, call: Call) -> Any:
        """Ask what changes nothing. Raises Failed (QEMU says no), Unavailable, Uncertain."""
        return _answer(call, self._connection.look(self._guest, lambda virt: self._say(virt, call)))

    def change(self, call: Call) -> None:
        """Change something. Raises Failed (QEMU says no), Unavailable, Uncertain."""
        _answer(call, self._connection.change(self._guest, lambda virt: self._say(virt, call)))

    def _say(self, virt: Any, call: Call) -> str:
        return self._say_to(self._domain(virt), call.text())


def _answer(call: Call, text: str) -> Any:
    told = json.loads(text)
    if "error" in told:
        raise Failed(f"QEMU answers to {call.command}: {told['error'].get('desc', '')}")
    return told["return"]
