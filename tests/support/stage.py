"""A machine with Moorline in it, a share outside of it, and guests that write all the time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab import guest as guests
from lab.guest import Silent
from lab.machine import guest as definitions
from lab.machine.container import LAB, Machine
from lab.quobyte.cluster import Quobyte, QuobyteVolume

WRITER = (
    "n=0; while :; do n=$((n+1)); echo $n >/tmp/next; "
    "dd if=/tmp/next of={device} bs=512 conv=sync,notrunc oflag=direct status=none "
    "&& mv /tmp/next /tmp/written || echo {failed} >/dev/ttyS0; done"
)


class Guest(guests.Guest):
    """A guest of a machine, asked from outside of it."""

    def __init__(self, name: str, agent: guests.GuestAgent, console: Path) -> None:
        self.name = name
        self.agent = agent
        self._console = console

    def write_all_the_time(self, serial: str) -> None:
        """Begin to write to the disk, and go on until it is told to stop or is gone."""
        loop = WRITER.format(device=self.wait_for(serial), failed=definitions.WRITE_FAILED)
        self.agent.check(f"({loop}) >/dev/null 2>&1 &")
        self.writes_on()

    def written(self) -> int:
        return int("".join(self.agent.check("cat /tmp/written 2>/dev/null || echo 0")))

    def writes_on(self, deadline: float = 60) -> None:
        """Return when it has written once more, twice. Raises Silent."""
        before = self.written()
        end = time.monotonic() + deadline
        while self.written() < before + 2:
            if time.monotonic() > end:
                raise Silent(f"{self.name} writes no more: {before}\n{self.console()}")
            time.sleep(0.05)

    def console(self) -> str:
        return self._console.read_text(errors="replace") if self._console.exists() else ""

    def saw_no_error(self) -> None:
        """Not one write of its failed, nor did its kernel complain of a disk.

        But for when it powers off: then it takes its own disks away beneath whoever writes.
        """
        console = "".join(
            boot.partition(definitions.POWER_OFF)[0] for boot in self.console().split("READY")
        )
        for word in (definitions.WRITE_FAILED, "I/O error", "blk_update", "hung task", "blocked"):
            assert word not in console, console


class Stage:
    """One test's share and guests on a machine."""

    def __init__(self, machine: Machine, name: str) -> None:
        self.machine = machine
        self.quobyte = Quobyte(machine.lab)
        self.share: QuobyteVolume = self.quobyte.volume(name)
        self.run = machine.run
        self._guests: list[str] = []

    def moorline(self, words: str, code: int | None = 0, deadline: float = 120) -> str:
        return self.run(f"moorline {words}", code=code, deadline=deadline).stdout

    def rows(self) -> dict[str, tuple[str, str]]:
        """What is wanted and what is seen, by volume."""
        rows: list[dict[str, Any]] = json.loads(self.moorline("list --output json"))
        return {row["volume"]: (row["wanted"], row["seen"]) for row in rows}

    # --- guests -------------------------------------------------------------

    def guest(self, name: str) -> Guest:
        """A guest that is defined and has booted."""
        self._guests.append(name)
        (self.machine.lab / "sockets" / f"{name}.console").unlink(missing_ok=True)
        xml = self.machine.lab / f"{name}.xml"
        xml.write_text(definitions.definition(name, Path(LAB)))
        self.run(f"virsh -q define {LAB}/{xml.name} && virsh -q start {name}")
        return self.booted(name)

    def booted(self, name: str, deadline: float = 120) -> Guest:
        """The guest, asked anew, when it answers. Raises Silent."""
        sockets = self.machine.lab / "sockets"
        guest = Guest(name, definitions.agent(name, sockets), sockets / f"{name}.console")
        guest.agent.ready(deadline)
        return guest

    def attach(self, guest: str, file: str) -> str:
        """A new disk on the share, attached to the guest; the volume's id."""
        volume: str = json.loads(self._attach(guest, file, "--output json", 0))["view"]["volume"]
        return volume

    def attach_fails(self, guest: str, file: str) -> None:
        """What is wanted is recorded, and not yet so."""
        self._attach(guest, file, "--timeout 2", 5)

    def _attach(self, guest: str, file: str, words: str, code: int) -> str:
        if not (self.share.path / file).exists():
            self.share.disk(file)
        source = f"quobyte://{self.share.export}/{file}"
        return self.moorline(f"attach {guest} {source} --format raw {words}", code)

    def writing(self, name: str) -> tuple[Guest, str]:
        """A guest with a disk to which it writes all the time, and the volume's id."""
        guest = self.guest(name)
        volume = self.attach(name, f"{name}.raw")
        guest.write_all_the_time(volume)
        return guest, volume

    # --- what is so ---------------------------------------------------------

    def clients(self) -> dict[str, list[str]]:
        """The processes of each scope in the slice of shares."""
        listed = self.run(
            "cd /sys/fs/cgroup/moorline.slice 2>/dev/null || exit 0; "
            'for each in *.scope; do [ -d "$each" ] && echo "$each" $(cat "$each/cgroup.procs"); '
            "done; true"
        )
        return {line.split()[0]: line.split()[1:] for line in listed.stdout.splitlines()}

    def agent(self) -> str:
        """The agent's process."""
        return self.property("MainPID")

    def property(self, name: str, unit: str = "moorline-agent") -> str:
        return self.run(f"systemctl show --value -p {name} {unit}").stdout.strip()

    def await_(self, what: Callable[[], object], deadline: float = 60) -> None:
        """Return when *what* is so; what it still says at the end is the AssertionError."""
        end = time.monotonic() + deadline
        while not what():
            assert time.monotonic() < end, "it did not come to pass"
            time.sleep(0.2)

    def journal(self) -> str:
        """What the machine's journal has of late, but for the commands that tests ran."""
        told = (
            "journalctl -b -n 200 --no-pager | grep -vE 'run-[a-z0-9-]*.scope|dev.kvm' | tail -50"
        )
        return self.run(f"{told}; moorline list; moorline doctor", code=None).stdout

    # --- afterwards ---------------------------------------------------------

    def strike(self) -> None:
        """Remove all of it; AssertionError: something cannot be removed."""
        for name in self._guests:
            self.run(f"virsh destroy {name}", code=None)
        for row in json.loads(self.moorline("list --output json")):
            self.moorline(f"detach {row['guest']} {row['volume']}")
        for name in self._guests:
            self.run(f"virsh undefine {name}", code=None)
        self.await_(lambda: not self.rows(), 30)
        self.await_(lambda: not self.clients(), 30)
        self.quobyte.clear()
