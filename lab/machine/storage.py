"""Trees with a kernel and the servers and clients of real storage: for virtual machines.

Each is a release's tree (tree.py) and what is installed on it. The kernel is the small one for
virtual machines; it is unpacked only, because installing it would make an initramfs of its own.
"""

from __future__ import annotations

import fcntl
import hashlib
from pathlib import Path

from lab.images import cache
from lab.machine import tree

PACKAGES = (
    *("apparmor", "busybox-static", "kmod", "qemu-guest-agent"),
    *("nfs-common", "nfs-kernel-server", "cifs-utils", "samba"),
    *("multipath-tools", "nvme-cli", "open-iscsi", "targetcli-fb"),
)
EXTRAS = (*tree.EXTRAS, "osbrick")
SERVICES = (
    *("nfs-server", "rpcbind.service", "rpcbind.socket", "smbd", "nmbd", "samba-ad-dc"),
    *("multipathd.service", "multipathd.socket", "nvmf-autoconnect", "rtslib-fb-targetctl"),
    *("e2scrub_reap", "apt-daily.timer", "apt-daily-upgrade.timer", "getty@tty1"),
)
"""What stories start when they need it, or nobody does: each costs seconds of a boot."""
_KERNEL = """
mkdir /kernel
cd /kernel
apt-get -q download $(apt-cache depends linux-image-cloud-amd64 | grep -o 'linux-image-[0-9][^ ]*')
dpkg -x linux-image-*.deb .
cp boot/vmlinuz-* /boot
mkdir -p /usr/lib/modules
cp -r $(ls -d usr/lib/modules/* lib/modules/* 2>/dev/null) /usr/lib/modules
rm -r /kernel
depmod $(ls /usr/lib/modules)
"""
_PROFILES = """
cd /etc/apparmor.d
mkdir -p disable
for each in *; do
  case $each in *libvirt* | usr.sbin.* | local) continue ;; esac
  [ ! -f $each ] || ln -s ../$each disable
done
"""
"""Debian 13 has a hundred of programs that are not here; an emulated machine takes half a minute
at each boot to load them. libvirt's stay."""
_TEXT = Path(__file__).read_text()


def recipe(release: str) -> str:
    """What tells a tree from those that were made otherwise."""
    return hashlib.sha256(f"{tree.path(release).name}\n{_TEXT}".encode()).hexdigest()[:8]


def build(release: str) -> Path:
    """The tree of *release* with storage, made unless it is there; minutes. Raises Unavailable."""
    base = tree.build(release)
    made = cache() / f"storage-{release}-{recipe(release)}"
    with (cache() / f"storage-{release}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            tree.build_at(made, f"storage-{release}", lambda builder: _fill(builder, base))
    return made


def _fill(builder: tree.Builder, base: Path) -> None:
    builder.copy(base)
    with builder.building():
        builder.install(*PACKAGES)
        builder.inside("bash", "-euc", _KERNEL)
        builder.inside("bash", "-euc", _PROFILES)
        builder.wheels(EXTRAS)
    for unit in SERVICES:
        builder.inside("sh", "-c", f"systemctl --quiet disable {unit} || true")
    # Nobody sits at the console, and its device is waited for.
    builder.inside("systemctl", "mask", "serial-getty@ttyS0.service")
