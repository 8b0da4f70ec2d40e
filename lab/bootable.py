"""A disk to boot from: boot loader, kernel and a root file system, all on it.

SYSLINUX on a FAT partition loads the lab's kernel and a small initramfs, which mounts the second
partition as root and goes on there. Everything is fetched and unpacked as for the guest itself.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from lab import images
from lab.guest import domain_xml

MIB = 1 << 20
SIZE = 64 * MIB
_FAT = (1 * MIB, 40 * MIB)
_ROOT = (41 * MIB, 20 * MIB)
"""Where each partition begins, and its size."""
_PACKAGES = ("syslinux", "syslinux-common", "mtools", "dosfstools", "busybox-static")
_MODULES = (*images.MODULES, "ext4", "button", "evdev")
"""The last two, so that it hears the power button."""

_INITRAMFS = """#!/bin/sh
/bin/busybox --install -s /bin
mount -t proc p /proc; mount -t sysfs s /sys; mount -t devtmpfs d /dev
for m in $(cat /modules/order); do insmod /modules/$m; done
for try in 1 2 3 4 5 6 7 8 9 10; do
  for root in /dev/vda2 /dev/sda2; do
    [ -b $root ] && mount -t ext4 $root /mnt && break 2
  done
  sleep 0.2
done
umount /proc; umount /sys; umount /dev
exec switch_root /mnt /init
"""
_CONFIG = f"DEFAULT lab\nLABEL lab\n  LINUX kernel\n  INITRD initramfs\n  APPEND {images.CMDLINE}\n"


def disk() -> Path:
    """The disk's image, made once; it needs apt's network. Copy it, and boot the copy."""
    recipe = hashlib.sha256(Path(__file__).read_bytes() + Path(images.__file__).read_bytes())
    made = images.cache() / f"boot-{recipe.hexdigest()[:8]}.raw"
    with (images.cache() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            with tempfile.TemporaryDirectory(dir=images.cache()) as work:
                built = _build(Path(work))
                for old in images.cache().glob("boot-*.raw"):
                    old.unlink()
                built.replace(made)
    return made


def copy_to(target: Path) -> None:
    """Write the disk into *target*: a file, which keeps its size if it is larger, or a device."""
    with disk().open("rb") as source, target.open("r+b") as out:
        shutil.copyfileobj(source, out, MIB)


def template(name: str, made: images.Images, sockets: Path) -> str:
    """A machine as the lab's guests are, but one that boots from its first disk."""
    domain = ET.fromstring(domain_xml(name, made, sockets))
    system = domain.find("os")
    assert system is not None
    for what in ("kernel", "initrd", "cmdline"):
        found = system.find(what)
        assert found is not None
        system.remove(found)
    return ET.tostring(domain, encoding="unicode")


def _build(work: Path) -> Path:
    root = work / "unpacked"
    images.unpack(work, root, _PACKAGES)
    kernel = next(iter(sorted((root / "boot").glob("vmlinuz-*"))))
    busybox = next(p for p in (root / "bin/busybox", root / "usr/bin/busybox") if p.exists())
    modules = images.modules(root, _MODULES)
    content = images.content(busybox.read_bytes(), modules, _INITRAMFS)
    (work / "initramfs").write_bytes(gzip.compress(images.newc(content), 6, mtime=0))
    (work / "syslinux.cfg").write_text(_CONFIG)
    image = work / "disk.raw"
    with image.open("xb") as file:
        file.truncate(SIZE)
        file.write(_boot_record((root / "usr/lib/syslinux/mbr/mbr.bin").read_bytes()))
        file.seek(_FAT[0])
        file.write(_fat(work, root, kernel).read_bytes())
        file.seek(_ROOT[0])
        file.write(_file_system(work, busybox).read_bytes())
    return image


def _boot_record(code: bytes) -> bytes:
    """The first sector: SYSLINUX's code and the two partitions, the first to boot from."""
    table = b"".join(
        struct.pack(
            "<B3sB3sII", flag, b"\xfe\xff\xff", kind, b"\xfe\xff\xff", at // 512, size // 512
        )
        for flag, kind, (at, size) in ((0x80, 0x0E, _FAT), (0, 0x83, _ROOT))
    )
    return code[:440].ljust(446, b"\0") + table.ljust(64, b"\0") + b"\x55\xaa"


def _fat(work: Path, root: Path, kernel: Path) -> Path:
    path = work / "fat.img"
    with path.open("xb") as file:
        file.truncate(_FAT[1])
    tools = [root / "usr/bin", root / "usr/sbin", root / "sbin"]
    environment = {**os.environ, "PATH": ":".join(map(str, tools)) + ":" + os.environ["PATH"]}

    def run(*command: str | Path) -> None:
        _run(command, environment)

    run("mkfs.fat", "-F", "16", "-h", str(_FAT[0] // 512), path)
    run("mcopy", "-i", path, kernel, "::kernel")
    run("mcopy", "-i", path, work / "initramfs", work / "syslinux.cfg", "::")
    run("syslinux", "--install", path)
    return path


def _file_system(work: Path, busybox: Path) -> Path:
    tree = work / "tree"
    for directory in ("bin", "dev", "proc", "sys", "tmp", "mnt", "modules"):
        (tree / directory).mkdir(parents=True)
    shutil.copyfile(busybox, tree / "bin/busybox")
    (tree / "bin/busybox").chmod(0o755)
    (tree / "bin/sh").symlink_to("busybox")
    (tree / "modules/order").touch()  # the initramfs has loaded them
    (tree / "init").write_text(images.INIT)
    (tree / "init").chmod(0o755)
    path = work / "root.img"
    command = ["mke2fs", "-q", "-t", "ext4", "-d", str(tree), str(path), f"{_ROOT[1] >> 10}k"]
    _run(command, os.environ)
    return path


def _run(command: Sequence[str | Path], environment: Mapping[str, str]) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"lab: the disk to boot from cannot be made: {command[0]}: {done.stderr}")
