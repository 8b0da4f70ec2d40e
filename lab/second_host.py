"""A second host beside the lab's: its own mounts, libvirt and host name, for migrations.

It shares processes, network and /dev with the lab host. What lies below the lab's
directory is seen by both, except the directories that it is told to have for itself.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from lab.host import LIBVIRTD_CONF, QEMU_CONF

_OWN = ("etc", "run", "lib", "log", "cache")
_ENTER = """\
set -e
directory=$1; shift
hostname second-host
for name in etc:/etc run:/run lib:/var/lib log:/var/log cache:/var/cache; do
    mount --bind "$directory/${name%%:*}" "${name#*:}/libvirt"
done
number=0
for path; do
    number=$((number + 1))
    mkdir "$directory/own-$number"; chmod 1777 "$directory/own-$number"
    mount --bind "$directory/own-$number" "$path"
done
mount --make-rshared /
exec libvirtd --pid-file "$directory/pid"
"""


class SecondHost:
    """*directory*: an empty one, below the lab's. *own*: directories that it does not share."""

    def __init__(self, directory: Path, own: Sequence[Path] = ()) -> None:
        self.socket = directory / "socket/libvirt-sock"
        for name in (*_OWN, "socket"):
            (directory / name).mkdir()
        shutil.copytree("/var/cache/libvirt", directory / "cache", dirs_exist_ok=True)
        conf = LIBVIRTD_CONF.format(uuid=uuid.uuid4())
        conf += f'unix_sock_dir = "{self.socket.parent}"\n'
        (directory / "etc/libvirtd.conf").write_text(conf)
        (directory / "etc/qemu.conf").write_text(QEMU_CONF)
        namespaces = ("unshare", "--mount", "--uts", "--propagation", "private", "--")
        words = (str(directory), *map(str, own))
        self._libvirtd = subprocess.Popen([*namespaces, "sh", "-c", _ENTER, "sh", *words])
        end = time.monotonic() + 30
        while not self._listens():
            assert self._libvirtd.poll() is None, "it ended"
            assert time.monotonic() < end, "it does not start"
            time.sleep(0.02)

    def _listens(self) -> bool:
        """Whether libvirtd takes connections: its socket has a name a moment before."""
        with socket.socket(socket.AF_UNIX) as to:
            return to.connect_ex(str(self.socket)) == 0

    @property
    def uri(self) -> str:
        return f"qemu+unix:///system?socket={self.socket}"

    @property
    def enter(self) -> tuple[str, ...]:
        """What stands before a command that is run there."""
        return ("nsenter", "--target", str(self._libvirtd.pid), "--mount", "--uts", "--")

    def run(self, *argv: str) -> None:
        """Run a command there."""
        subprocess.run([*self.enter, *argv], check=True, timeout=30)

    def close(self) -> None:
        """End it; its guests must be gone."""
        self._libvirtd.terminate()
        self._libvirtd.wait(20)
