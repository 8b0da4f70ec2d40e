"""A virtual machine with Moorline and real storage in it, and guests that never run.

A guest that is started paused has its disks like any other, and QEMU reads and writes them when it
is told to (``qemu-io``). SCSI disks come and go without the guest's help.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from typing import Any

from lab.machine import servers
from lab.machine.virtual import Virtual

GUEST = """<domain type='qemu'><name>{name}</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type></os><features><acpi/></features><devices>
<controller type='scsi' model='virtio-scsi'/><controller type='usb' model='none'/>
<memballoon model='none'/></devices>{more}</domain>"""


class Real:
    """One test's guests and volumes on the machine."""

    def __init__(self, machine: Virtual) -> None:
        self.machine = machine
        self.run = machine.run
        self._ids = (f"{n:08x}-aaaa-4bbb-8ccc-dddddddddddd" for n in itertools.count(1))

    def id(self) -> str:
        """Of a volume, new."""
        return next(self._ids)

    def moorline(self, words: str, code: int | None = 0, deadline: float = 240) -> str:
        told = self.run(f"moorline {words}", code=code, deadline=deadline)
        return told.stdout + told.stderr

    def rows(self) -> dict[str, tuple[str, str]]:
        """What is wanted and what is seen, by volume."""
        listed: list[dict[str, Any]] = json.loads(self.run("moorline list -o json").stdout)
        return {row["volume"]: (row["wanted"], row["seen"]) for row in listed}

    def guest(self, name: str, more: str = "") -> str:
        """A guest without disks. It stays for the tests that follow: to start one takes long.

        *more*: of its definition.
        """
        state = self.run(f"virsh domstate {name}", code=None).stdout.strip()
        if not state:
            self.run(
                f"virsh -q define /dev/stdin <<'END'\n{GUEST.format(name=name, more=more)}\nEND"
            )
        if state != "paused":
            self.run(f"virsh -q start --paused {name}")
        return name

    def attach(
        self,
        guest: str,
        connection: dict[str, Any],
        code: int | None = 0,
        words: str = "--timeout 120",
    ) -> str:
        """Attach what *connection* says; what was told."""
        servers.put(self.machine, f"/run/{connection['serial']}.json", connection)
        at = f"--connection /run/{connection['serial']}.json"
        return self.moorline(f"attach {guest} {at} --bus scsi {words}", code)

    def detach(self, guest: str, volume: str, code: int = 0) -> str:
        return self.moorline(f"detach {guest} {volume}", code)

    def io(self, guest: str, volume: str, command: str, deadline: float = 120) -> str:
        """Let QEMU do *command* of qemu-io on the disk of *volume*; the end of its log."""
        xml = f"virsh dumpxml {guest}"
        find = f"grep -A99 '<serial>{volume}' | grep -o -m1 \"alias name='[^']*\" | cut -d\\' -f2"
        hmp = f"virsh qemu-monitor-command --hmp {guest}"
        return self.run(
            f'alias=$({xml} | {find}); {hmp} "qemu-io -d $alias \\"{command}\\""; '
            f"tail -n 2 /var/log/libvirt/qemu/{guest}.log",
            deadline=deadline,
        ).stdout

    def writes(self, guest: str, volume: str, byte: int, file: str) -> None:
        """A write through the guest's disk is in *file*, on the server."""
        told = self.io(guest, volume, f"write -P {byte} 0 64k")
        assert "failed" not in told, told
        self.io(guest, volume, "flush")
        seen = self.run(f"head -c 65536 {file} | od -An -tu1 -v | tr -s ' ' '\\n' | sort -u").stdout
        assert seen.split() == [str(byte)], seen

    def await_(self, what: Callable[[], object], deadline: float = 120) -> None:
        """Return when *what* is so."""
        began = time.monotonic()
        end = began + deadline
        while not what():
            assert time.monotonic() < end, f"it did not come to pass\n{self.journal()}"
            # To ask costs an emulated machine what it needs to get on.
            time.sleep(min(0.5 + (time.monotonic() - began) / 10, 5))

    def journal(self) -> str:
        """What the machine has to tell of late."""
        return self.run(
            "journalctl -b -n 300 --no-pager | grep -v qemu-ga | tail -60; "
            "moorline list; moorline doctor",
            code=None,
        ).stdout

    def strike(self) -> None:
        """Remove all of it; AssertionError: something cannot be removed."""
        for row in json.loads(self.run("moorline list -o json").stdout):
            # What still looks for a device that is not there is waited for.
            self.moorline(f"detach {row['guest']} {row['volume']} --timeout 230", deadline=300)
        assert self.run("findmnt -rn -o TARGET | grep /var/lib/moorline; true").stdout == ""
        assert self.run("ls /dev/moorline 2>/dev/null; true").stdout == ""
