"""Finds what something left behind on this host: mounts, processes, domains, disks."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    import libvirt

PASSING = ("libvirtd", "dnsmasq", "ps")
"""Commands that come and go without being anybody's leftovers."""

SERVICE = "MOORLINE_LAB_SERVICE"
"""In the environment of a server that tests share: it may end and start within one."""


@dataclass(frozen=True)
class Snapshot:
    """What is there: each thing's identity, and words for it."""

    mounts: dict[str, str]
    processes: dict[str, str]
    domains: dict[str, str]
    disks: dict[str, str]

    def since(self, before: Snapshot) -> list[str]:
        """What is here and was not there *before*."""
        new = []
        for kind, word in (
            ("mounts", "mount"),
            ("processes", "process"),
            ("domains", "domain"),
            ("disks", "disk"),
        ):
            now, then = getattr(self, kind), getattr(before, kind)
            new += [f"{word}: {now[key]}" for key in sorted(now.keys() - then.keys())]
        return new


def look(connection: libvirt.virConnect) -> Snapshot:
    """Take a snapshot; blocks on nothing but libvirt."""
    domains = connection.listAllDomains()
    return Snapshot(
        _mounts(),
        _processes({domain.name() for domain in domains}),
        {domain.name(): domain.name() for domain in domains},
        {disk: disk for domain in domains for disk in _disks(domain)},
    )


def after(
    connection: libvirt.virConnect,
    before: Snapshot,
    welcome: Collection[str] = (),
    patience: float = 3,
) -> list[str]:
    """What is left since *before*, once things had a moment to end; not the guests *welcome*."""
    end = time.monotonic() + patience
    fine = {f"domain: {name}" for name in welcome}
    while left := [it for it in look(connection).since(before) if it not in fine]:
        if time.monotonic() > end:
            return left
        time.sleep(0.05)
    return []


def clean(connection: libvirt.virConnect, before: Snapshot) -> None:
    """Take away by force whatever is there and was not before."""
    for name in look(connection).domains.keys() - before.domains.keys():
        domain = connection.lookupByName(name)
        if domain.isActive():
            domain.destroy()
        if domain.isPersistent():
            domain.undefine()
    for pid in look(connection).processes.keys() - before.processes.keys():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid.partition(" ")[0]), signal.SIGKILL)
    now = _mounts()
    for key in sorted(now.keys() - before.mounts.keys(), reverse=True):
        subprocess.run(["umount", "-l", "--", now[key].split()[-1]], check=False)


def _mounts() -> dict[str, str]:
    found = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        fields, (fstype, source, *_) = left.split(), right.split()
        found[f"{int(fields[0]):08}"] = f"{fstype} {source} on {fields[4]}"
    return found


def _processes(guests: set[str]) -> dict[str, str]:
    """Every process but those of guests, by id and start time."""
    found = {}
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            stat = (directory / "stat").read_text().rpartition(")")[2].split()
            command = (directory / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if stat[0] == "Z" or not command[0] or Path(command[0]).name in PASSING:
                continue
            if any(word.startswith("guest=") and _guest(word) in guests for word in command):
                continue
            if _is_service(directory):
                continue
            found[f"{directory.name} {stat[19]}"] = " ".join(command).strip()
    return found


def _is_service(process: Path) -> bool:
    try:
        return f"{SERVICE}=".encode() in (process / "environ").read_bytes()
    except OSError:  # it ended, or hides: no reason to leave it out
        return False


def _guest(word: str) -> str:
    return word.removeprefix("guest=").partition(",")[0]


def _disks(domain: libvirt.virDomain) -> list[str]:
    """The disks of the running guest and of its definition."""
    found = []
    for flags, where in ((0, "live"), (2, "config")):  # VIR_DOMAIN_XML_INACTIVE = 2
        for disk in ET.fromstring(domain.XMLDesc(flags)).findall("devices/disk"):
            target = disk.find("target")
            device = "?" if target is None else target.get("dev")
            found.append(f"{device} of {domain.name()} ({where})")
    return found
