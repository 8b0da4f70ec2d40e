"""The first process of a fleet's host: furnishes it, starts libvirtd, and reaps what ends."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

from lab import devices, host
from lab.fleet.node import LIBVIRTD, libvirtd_conf

QEMU_CONF = """\
keepalive_interval = 2
keepalive_count = 3
"""
BINDS = {
    "etc": "/etc/libvirt",
    "libvirt": "/run/libvirt",
    "lib": "/var/lib/libvirt",
    "log": "/var/log/libvirt",
    "cache": "/var/cache/libvirt",
    "state": "/var/lib/moorline",
    "moorline": "/etc/moorline",
    "sockets": str(host.SOCKETS),
}
"""What is the host's own, and where it has it."""

AWHILE = Path("/mnt")
"""Where the new /run is made."""


def main(directory: Path, address: str) -> None:
    socket.sethostname(directory.name)
    (directory / "run/waits").touch()
    _furnish(directory, address)
    while (directory / "run/waits").exists():
        time.sleep(0.01)  # the cable is not plugged in yet
    for words in (
        ("link", "set", "lo", "up"),
        ("addr", "add", f"{address}/24", "dev", "eth0"),
        ("link", "set", "eth0", "up"),
    ):
        subprocess.run(["ip", *words], check=True)
    subprocess.run(LIBVIRTD, check=True, timeout=30)
    (directory / "run/ready").touch()
    while True:
        try:
            os.wait()
        except ChildProcessError:
            time.sleep(0.1)


def _furnish(directory: Path, address: str) -> None:
    (directory / "etc/libvirtd.conf").write_text(libvirtd_conf(directory, address))
    (directory / "etc/qemu.conf").write_text(host.QEMU_CONF + QEMU_CONF)
    # A new /run, in which what all hosts see is where it was.
    _mount("-t", "tmpfs", "-o", "mode=755", "moorline-run", str(AWHILE))
    for name in (host.LAB.name, "lock", "libvirt"):
        (AWHILE / name).mkdir()
    shutil.rmtree(directory / "libvirt")  # of before it was booted
    (directory / "libvirt").mkdir()
    _mount("--rbind", str(host.LAB), str(AWHILE / host.LAB.name))
    _mount("--move", str(AWHILE), "/run")
    Path(BINDS["moorline"]).mkdir(exist_ok=True)
    for name, at in BINDS.items():
        _mount("--bind", str(directory / name), at)
    boot = directory / "run/boot_id"
    boot.write_text(f"{uuid.uuid4()}\n")
    for file, at in (
        (directory.parent / "hosts", "/etc/hosts"),
        (directory / "machine-id", "/etc/machine-id"),
        (boot, "/proc/sys/kernel/random/boot_id"),
    ):
        _mount("--bind", str(file), at)
    (directory / "dev").mkdir(exist_ok=True)
    devices.furnish(directory / "dev", kvm=Path("/dev/kvm").exists())
    _mount("--make-rshared", "/")


def _mount(*words: str) -> None:
    subprocess.run(["mount", "--no-mtab", *words], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
