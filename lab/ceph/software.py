"""Ceph's programs of this machine's release, unpacked beside the guest's images, not installed.

Debian's packages would start services. What they depend on comes with them, as far as the machine
has it not.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from lab.images import cache

PACKAGES = ("ceph-mon", "ceph-osd", "ceph-common")


class Missing(Exception):
    """The machine lacks something; the text says what."""


def directory() -> Path:
    """Where they are unpacked; another release's, or other packages, are elsewhere."""
    release = Path("/etc/os-release").read_text()
    return cache() / f"ceph-{hashlib.sha256(f'{PACKAGES}{release}'.encode()).hexdigest()[:8]}"


def fetch() -> Path:
    """Download and unpack them unless they are there; 50 MB, 180 MB unpacked. It needs root."""
    to = directory()
    with (cache() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not to.exists():
            with tempfile.TemporaryDirectory(dir=cache()) as made:
                _unpack(Path(made))
                (Path(made) / "root").rename(to)
    return to


def _unpack(made: Path) -> None:
    archives = made / "archives"
    (archives / "partial").mkdir(parents=True)
    install = ("apt-get", "install", "-q", "-y", "--no-install-recommends", "--download-only")
    options = (f"Dir::Cache::archives={archives}", "Debug::NoLocking=1", "APT::Sandbox::User=root")
    words = [word for option in options for word in ("-o", option)]
    subprocess.run([*install, *words, *PACKAGES], check=True, stdin=subprocess.DEVNULL)
    root = made / "root"
    root.mkdir(mode=0o755)
    for archive in sorted(archives.glob("*.deb")):
        subprocess.run(["dpkg", "-x", archive, root], check=True)
    for name in ("lib", "sbin", "bin"):  # they are one with those of /usr on the machine
        if (root / name).is_dir():
            shutil.copytree(root / name, root / "usr" / name, dirs_exist_ok=True, symlinks=True)
            shutil.rmtree(root / name)


def libraries() -> Path:
    """Where their libraries are, and what those load. Raises Missing."""
    if found := [path.parent for path in directory().glob("usr/lib/*/rados-classes")]:
        return found[0]
    raise Missing("Ceph is not unpacked here: python -m lab fetch ceph")


def environment() -> dict[str, str]:
    """In which the programs run. Raises Missing."""
    root = directory() / "usr"
    return {
        **os.environ,
        "PATH": f"{root}/bin:{root}/sbin:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": f"{libraries()}:{libraries()}/ceph",
        "PYTHONPATH": f"{root}/lib/python3/dist-packages",
    }
