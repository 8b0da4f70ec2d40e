"""The lab's guest in a machine: it hears the power button, and its console is a file.

Whatever its kernel has to say of its disks is in that file, also when the machine is gone.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from xml.etree import ElementTree as ET

from lab import images
from lab.guest import GuestAgent, domain_xml

MODULES = (*images.MODULES, "button", "evdev")
POWER_OFF = "POWER OFF"
"""What the guest's console says when it was asked to shut down, and does."""
WRITE_FAILED = "WRITE FAILED"
LAST_SECTOR = 1
"""Of each disk, the sector to which the guest writes ``off`` before it goes."""
_POWER_BUTTON = rf"""mkdir -p /etc/acpi/PWRF
cat >/etc/acpi/PWRF/00000080 <<'END'
#!/bin/sh
exec >/dev/ttyS0 2>&1
for disk in /dev/vd?; do
  [ -b $disk ] || continue
  echo off | dd of=$disk seek={LAST_SECTOR} bs=512 conv=sync,notrunc oflag=direct status=none \
    || echo {WRITE_FAILED}
done
echo {POWER_OFF}
poweroff -f
END
chmod 755 /etc/acpi/PWRF/00000080
acpid -d >/dev/null 2>&1 &
echo READY
"""
INIT = images.INIT.replace("echo READY\nwhile", f"{_POWER_BUTTON}while", 1)
assert INIT != images.INIT


def build() -> Path:
    """A directory with the guest's kernel and initramfs, made once; it needs apt's network."""
    recipe = hashlib.sha256(Path(__file__).read_bytes() + Path(images.__file__).read_bytes())
    directory = images.cache() / f"acpi-guest-{recipe.hexdigest()[:8]}"
    with (images.cache() / "acpi-guest.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not directory.exists():
            with tempfile.TemporaryDirectory(dir=images.cache()) as work:
                _build(Path(work))
                for old in images.cache().glob("acpi-guest-????????"):
                    shutil.rmtree(old)
                (Path(work) / "guest").rename(directory)
    return directory


def _build(work: Path) -> None:
    made = work / "guest"
    made.mkdir()
    made.chmod(0o755)
    root = work / "root"
    images.unpack(work, root, ["busybox-static"])
    shutil.copyfile(next(iter(sorted((root / "boot").glob("vmlinuz-*")))), made / "kernel")
    busybox = next(p for p in (root / "bin/busybox", root / "usr/bin/busybox") if p.exists())
    content = images.content(busybox.read_bytes(), images.modules(root, MODULES), INIT)
    (made / "initramfs").write_bytes(gzip.compress(images.newc(content), 6, mtime=0))
    for file in made.iterdir():
        file.chmod(0o644)


def furnish(directory: Path) -> None:
    """Put the guest's kernel and initramfs into *directory*."""
    shutil.copytree(build(), directory)


def definition(name: str, lab: Path) -> str:
    """The XML of a guest of a machine that sees the lab's storage at *lab*."""
    made = images.Images(lab / "guest/kernel", lab / "guest/initramfs", kvm=False)
    domain = ET.fromstring(domain_xml(name, made, lab / "sockets"))
    console = domain.find("devices/serial")
    assert console is not None
    console.set("type", "file")
    source = console.find("source")
    assert source is not None
    source.attrib.clear()
    source.set("path", str(lab / "sockets" / f"{name}.console"))
    source.set("append", "on")
    return ET.tostring(domain, encoding="unicode")


def agent(name: str, sockets: Path) -> GuestAgent:
    """What runs commands in the guest, from outside of the machine.

    By way of a descriptor of the directory: a socket's path has 107 bytes at most.
    """
    directory = os.open(sockets, os.O_PATH | os.O_DIRECTORY)
    return GuestAgent(Path(f"/proc/self/fd/{directory}/{name}.agent"))
