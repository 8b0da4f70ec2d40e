"""NFS without stand-ins: the kernel's client, a server on this machine, a guest.

Skipped where one of them is missing; the contract suite has the same code on a
stand-in ``mount.nfs`` everywhere (tests/contract/test_backend_mounted.py).
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lab import host
from lab.command import Moorline
from lab.guest import Guest, digest, pattern

REAL = host.real_path()
# Version 4 alone, over TCP: then it needs neither rpcbind nor idmapd.
GANESHA = """\
NFS_CORE_PARAM {{ Protocols = 4; NFS_Port = 2049; Enable_UDP = false; Enable_RQUOTA = false; }}
NFSv4 {{ Graceless = true; UseGetpwnam = true; RecoveryRoot = "{recovery}"; }}
EXPORT {{
    Export_Id = 1; Path = "{path}"; Pseudo = "/export";
    Access_Type = RW; Squash = No_Root_Squash; SecType = sys;
    FSAL {{ Name = VFS; }}
}}
"""


def missing() -> str:
    """What this machine lacks, if anything."""
    if "nfs4" not in Path("/proc/filesystems").read_text().split():
        return "this kernel has no NFS client (modprobe nfsv4 was not done, or cannot be)"
    for command, package in (("mount.nfs", "nfs-common"), ("ganesha.nfsd", "nfs-ganesha-vfs")):
        if shutil.which(command, path=REAL) is None:
            return f"there is no {command} ({package})"
    return ""


@pytest.fixture
def export(lab: Path, tmp_path: Path, leftovers_check: None) -> Iterator[Path]:
    """A directory that is exported as 127.0.0.1:/export."""
    if reason := missing():
        pytest.skip(reason)
    directory, recovery, conf = (tmp_path / name for name in ("export", "recovery", "conf"))
    for each in (directory, recovery, Path("/run/ganesha")):
        each.mkdir(exist_ok=True)
    conf.write_text(GANESHA.format(path=directory, recovery=recovery))
    files = ("-f", conf, "-L", tmp_path / "log", "-p", tmp_path / "pid")
    server = subprocess.Popen(["ganesha.nfsd", "-F", *files], env={**os.environ, "PATH": REAL})
    end = time.monotonic() + 30
    while not listens():
        assert server.poll() is None, (tmp_path / "log").read_text()
        assert time.monotonic() < end, "the server does not listen"
        time.sleep(0.1)
    yield directory
    server.terminate()
    server.wait(20)


def listens() -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", 2049)) == 0


def mounts() -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line.split(" - ")[1].split()[0] for line in lines if " 127.0.0.1:/export " in line]


def test_a_guest_uses_a_disk_on_nfs(export: Path, moorline: Moorline, guest: Guest) -> None:
    file = export / "disk.raw"
    file.touch()
    os.truncate(file, 16 << 20)
    moorline = replace(moorline, environment={"PATH": REAL})
    url, id = "nfs://127.0.0.1/export/disk.raw", "cccccccc-0000-4000-8000-000000000003"
    moorline("attach", guest.name, url, "--format", "raw", "--volume", id)
    assert mounts() == ["nfs4"]
    guest.write(id, "over the wire")
    assert file.read_bytes()[:65536] == pattern("over the wire")
    assert guest.digest(id) == digest(pattern("over the wire"))
    moorline("detach", guest.name, id)
    assert mounts() == []
