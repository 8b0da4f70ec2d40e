"""What virtual machines of a release boot from: a disk with Moorline in it, kernel and initramfs.

Moorline is installed on a container of the release's tree with storage, as docs/operations.md and
docs/osbrick.md tell, and what the container then has becomes the disk. Kept in ``.lab/``, named
for the tree and for the checkout; a virtual machine writes to a layer of its own.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from lab import images
from lab.images import CHECKOUT, cache
from lab.machine import container, operations, storage
from lab.machine.container import SOURCE, Machine

SIZE = "6G"
INSTALLED = ("docs/operations.md", "docs/osbrick.md", "packaging", "pyproject.toml", "src")
"""What the disk depends on, of the checkout."""
MODULES = ("virtio_pci", "virtio_blk", "ext4", "virtio_console", "virtio_rng")
INIT = r"""#!/bin/sh
/bin/busybox --install -s /bin
mount -t proc p /proc; mount -t sysfs s /sys; mount -t devtmpfs d /dev
for m in $(cat /modules/order); do insmod /modules/$m; done
while ! [ -b /dev/vda ]; do sleep 0.1; done
mkdir /root
mount -t ext4 /dev/vda /root && exec switch_root /root /lib/systemd/systemd
"""
_MERGE = """
mount -t overlay -o "ro,lowerdir=$here/upper:$tree" lab "$here/root"
mount --bind "$here/var" "$here/root/var"
truncate -s "$size" "$disk"
mke2fs -q -t ext4 -d "$here/root" "$disk"
"""
_SHELL = """[Service]
Environment=HOME=/root
WorkingDirectory=/root
ExecStart=
ExecStart=-/sbin/agetty --skip-login --login-program /bin/bash --noclear --keep-baud 115200 %I $TERM
"""
"""On the virtual console: whoever reaches its socket is root of the machine already. No login,
whose user manager takes half a minute of an emulated machine."""
_TEXT = Path(__file__).read_text()


@dataclass(frozen=True)
class Disk:
    """Files that a virtual machine boots from."""

    root: Path
    """Raw; an ext4 file system."""
    kernel: Path
    initramfs: Path


def build(release: str) -> Disk:
    """The disk of *release*, made unless it is there; a minute. Raises Unavailable."""
    tree = storage.build(release)
    directory = cache() / f"disk-{release}-{_recipe(tree)}"
    with (cache() / f"disk-{release}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not directory.exists():
            work = Path(tempfile.mkdtemp(dir=cache(), prefix=f"unfinished-disk-{release}-"))
            try:
                _build(release, tree, work)
                for old in cache().glob(f"disk-{release}-????????"):
                    shutil.rmtree(old)
                work.rename(directory)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    return Disk(directory / "root", directory / "kernel", directory / "initramfs")


def _recipe(tree: Path) -> str:
    digest = hashlib.sha256(f"{tree.name}\n{_TEXT}".encode())
    for name in INSTALLED:
        top = CHECKOUT / name
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(f"{path.relative_to(CHECKOUT)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:8]


def _build(release: str, tree: Path, work: Path) -> None:
    with container.machine(release, tree) as machine:
        machine.start()
        operations.install(machine)
        machine.run(f"cd {SOURCE} && {_osbrick()}", deadline=300)
        machine.stop()
        _merge(machine, tree, work / "root")
    kernel = next(iter(sorted((tree / "boot").glob("vmlinuz-*"))))
    shutil.copyfile(kernel, work / "kernel")
    modules = images.modules(tree / "usr", MODULES)
    busybox = (tree / "usr/bin/busybox").read_bytes()
    archive = images.newc(images.content(busybox, modules, INIT))
    (work / "initramfs").write_bytes(gzip.compress(archive, 6, mtime=0))


def _osbrick() -> str:
    """How docs/osbrick.md installs os-brick."""
    page = (CHECKOUT / "docs/osbrick.md").read_text().splitlines()
    return next(line[2:] for line in page if line.startswith("# /opt/moorline/bin/pip "))


def _merge(machine: Machine, tree: Path, disk: Path) -> None:
    """Make *disk* of what the container has, but for its stand-ins; with a shell on a console."""
    here = machine.directory
    for command in (here / "upper/usr/local/bin").iterdir():
        if command.is_symlink() and str(command.readlink()).startswith(container.SOFTWARE):
            command.unlink()
    units = here / "upper/etc/systemd/system"
    (units / "serial-getty@hvc0.service.d").mkdir()
    (units / "serial-getty@hvc0.service.d/lab.conf").write_text(_SHELL)
    (units / "multi-user.target.wants/serial-getty@hvc0.service").symlink_to(
        "/usr/lib/systemd/system/serial-getty@.service"
    )
    given = {"here": str(here), "tree": str(tree), "disk": str(disk), "size": SIZE}
    subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "bash", "-euc", _MERGE],
        env={**os.environ, **given},
        check=True,
    )
