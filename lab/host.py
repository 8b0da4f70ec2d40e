"""A host of its own: private mounts, processes, network and libvirt, gone when it ends.

``enter`` runs a command in new mount, PID, UTS and network namespaces, where
``qemu:///system`` is a libvirtd that nobody else uses. All of libvirt's and
Moorline's directories are private, and systemd is out of sight. Whatever the
command leaves behind (guests, daemons, mounts) dies with the namespaces.

Inside, everything of the lab's lies below ``/run/moorline-lab``, on the disk of
the checkout (so that O_DIRECT works), reachable for QEMU's user whatever the
modes of the directories above the checkout are.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import pwd
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from lab import bootable, devices
from lab.images import CHECKOUT, Images, build, cache

LAB = Path("/run/moorline-lab")
IMAGES = LAB / "images"
SOCKETS = LAB / "sockets"
SOFTWARE = LAB / "software/lab"
NBD_CERTIFICATES = LAB / "nbd-pki"
"""Where QEMU looks for those with which it speaks NBD by TLS: as qemu.conf has it."""
GLUSTERFS = (Path("/var/lib/glusterd"), Path("/var/log/glusterfs"))
"""What GlusterFS's servers and clients write, where they are installed."""
VSTORAGE = Path("/etc/vstorage")
"""What this node knows of Virtuozzo Storage clusters."""
LIBVIRT_PID = Path("/run/libvirtd.pid")
LIFELINE = "lifeline"
INSIDE = "MOORLINE_LAB_INSIDE"
KEPT = ("PATH", "HOME", "LANG", "TERM", "CI", "VIRTUAL_ENV")

LIBVIRTD_CONF = """\
host_uuid = "{uuid}"
unix_sock_group = "root"
unix_sock_rw_perms = "0700"
auth_unix_ro = "none"
auth_unix_rw = "none"
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
"""
QEMU_CONF = """\
stdio_handler = "file"
cgroup_controllers = []
security_driver = "none"
nbd_tls_x509_cert_dir = "/run/moorline-lab/nbd-pki"
"""


def inside() -> bool:
    """Whether this process runs in a lab host."""
    return INSIDE in os.environ


def enter(command: Sequence[str], *, shared: bool = True) -> int:
    """Run *command* in a new host; return its exit code. Uses sudo unless root.

    *shared* False: the mount table is private, as on a host without systemd, so
    a mount made after a guest started does not reach that guest's QEMU.
    """
    with streams_kept():
        build()  # before the network is gone
        bootable.disk()
    sudo = [] if os.geteuid() == 0 else ["sudo", "--"]
    here, lifeline = _directory(sudo)
    namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    namespaces += ["--uts", "--net", "--propagation", "private"]
    inner = [sys.executable, "-m", "lab.host", str(here), "shared" if shared else "private"]
    kept = [f"{key}={value}" for key, value in os.environ.items() if _is_kept(key)]
    kept += [f"PYTHONPATH={CHECKOUT}", f"MOORLINE_LAB_CACHE={cache().resolve()}"]
    try:
        return subprocess.call([*sudo, "env", *kept, *namespaces, *inner, "--", *command])
    finally:
        os.close(lifeline)
        _remove(here, sudo)


@contextlib.contextmanager
def streams_kept() -> Iterator[None]:
    """Keep standard input and output for the command, from what prepares its host.

    A test's worker is spoken to on them, and QEMU, tried for KVM, would read what it is told.
    """
    sys.stdout.flush()
    kept = [os.dup(stream) for stream in (0, 1)]
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        for stream, copy in enumerate(kept):
            os.dup2(copy, stream)
            os.close(copy)


def _directory(sudo: Sequence[str]) -> tuple[Path, int]:
    """A directory for a host, and the descriptor that keeps it: of a pipe, and locked."""
    with (cache() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for old in cache().glob("host-*"):
            with contextlib.suppress(OSError):  # it is used
                os.close(_keep(old))
                _remove(old, sudo)
        here = Path(tempfile.mkdtemp(dir=cache(), prefix="host-"))
        here.chmod(0o755)
        os.mkfifo(here / LIFELINE)
        return here, _keep(here)


def _keep(directory: Path) -> int:
    lifeline = os.open(directory / LIFELINE, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(lifeline, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lifeline)
        raise
    return lifeline


def _remove(directory: Path, sudo: Sequence[str]) -> None:
    # Mount points are immutable while nothing is mounted on them.
    subprocess.run([*sudo, "chattr", "-R", "-f", "-i", str(directory)], check=False)
    # Loop devices are the kernel's: they would outlive the host.
    detach = [sys.executable, "-m", "lab.loops", str(directory)]
    subprocess.run([*sudo, *detach], cwd=CHECKOUT, check=False)
    subprocess.run([*sudo, "rm", "-rf", "--", str(directory)], check=False)


def _is_kept(key: str) -> bool:
    return key in KEPT or key.startswith(("MOORLINE_", "PYTEST", "HYPOTHESIS_"))


# --- inside: process 1 of the host -----------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("propagation", choices=("shared", "private"))
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()
    os.umask(0o022)
    threading.Thread(target=_die_with, args=[args.directory / LIFELINE], daemon=True).start()
    with streams_kept():
        _furnish(args.directory, args.propagation)
        start_libvirtd()
    os.environ[INSIDE] = args.propagation
    os.environ["MOORLINE_LAB"] = str(LAB)
    os.environ["PATH"] = f"{SOFTWARE / 'commands'}:{os.environ['PATH']}"
    command = subprocess.Popen(args.command)  # kept: one that is dropped reaps its process
    return _wait_for(command.pid)


def _die_with(lifeline: Path) -> None:
    """End this host when who entered it is gone, even if killed."""
    lifeline.read_bytes()
    os._exit(1)


def _wait_for(wanted: int) -> int:
    """Reap everything that ends, as process 1 must, until *wanted* does."""
    while True:
        try:
            pid, status = os.wait()
        except KeyboardInterrupt:
            continue  # the command got it too, and decides
        if pid == wanted:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _furnish(directory: Path, propagation: str) -> None:
    socket.sethostname("moorline-lab")
    _run("ip", "link", "set", "lo", "up")
    guest = build()
    capabilities = cache() / "libvirt"  # what QEMU can do: 5 s to find out, so kept
    capabilities.mkdir(exist_ok=True)
    capabilities.chmod(0o711)
    for name in (
        "etc",
        "vstorage",
        "lib",
        "log",
        "state",
        "lab",
        "lab/images",
        "lab/nbd-pki",
        "lab/software",
        "lab/software/lab",
        "lab/sockets",
    ):
        (directory / name).mkdir()
    (directory / "lab/sockets").chmod(0o777)
    (directory / "etc/libvirtd.conf").write_text(LIBVIRTD_CONF.format(uuid=uuid.uuid4()))
    (directory / "etc/qemu.conf").write_text(QEMU_CONF)
    # /run hides systemd and D-Bus; what is mounted on it must not cover what follows.
    _run("mount", "-t", "tmpfs", "-o", "mode=755", "moorline-lab", "/run")
    for path in (LAB, Path("/run/lock"), Path("/var/lib/moorline"), VSTORAGE):
        path.mkdir(exist_ok=True)
    _bind(directory / "etc", Path("/etc/libvirt"))
    _bind(directory / "vstorage", VSTORAGE)
    _bind(directory / "lib", Path("/var/lib/libvirt"))
    _bind(directory / "log", Path("/var/log/libvirt"))
    _bind(directory / "state", Path("/var/lib/moorline"))
    _bind(capabilities, Path("/var/cache/libvirt"))
    for path in filter(Path.exists, GLUSTERFS):
        (directory / path.name).mkdir()
        _bind(directory / path.name, path)
    _bind(directory / "lab", LAB)
    _bind(guest.kernel.parent, IMAGES)
    # Clients run as other users too, who may not get through to the checkout.
    _bind(CHECKOUT / "lab", SOFTWARE)
    if Path("/etc/fuse.conf").exists():
        (directory / "fuse.conf").write_text("user_allow_other\n")
        _bind(directory / "fuse.conf", Path("/etc/fuse.conf"))
    (directory / "dev").mkdir()
    devices.furnish(directory / "dev", kvm=guest.kvm)
    fusectl = Path("/sys/fs/fuse/connections")
    if fusectl.exists() and not os.path.ismount(fusectl):
        _run("mount", "-t", "fusectl", "fusectl", str(fusectl))
    _run("mount", f"--make-r{propagation}", "/")


def _bind(source: Path, target: Path) -> None:
    _run("mount", "--bind", str(source), str(target))


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True)


# --- inside: for tests and demos --------------------------------------------


def images() -> Images:
    """The guest's images, where QEMU's user can read them."""
    return replace(build(), kernel=IMAGES / "kernel", initramfs=IMAGES / "initramfs")


def real_path() -> str:
    """PATH without the commands that stand in for vendors'."""
    words = os.environ["PATH"].split(os.pathsep)
    return os.pathsep.join(word for word in words if word != str(SOFTWARE / "commands"))


def start_libvirtd() -> None:
    """Start libvirtd; return when it takes connections."""
    command = ["libvirtd", "--daemon", "--pid-file", str(LIBVIRT_PID)]
    subprocess.run(command, check=True, timeout=120)


def kill_libvirtd() -> None:
    """Kill libvirtd as a crash would; the guests run on."""
    pid = int(LIBVIRT_PID.read_text())
    os.kill(pid, signal.SIGKILL)
    while Path(f"/proc/{pid}").exists():
        time.sleep(0.005)
    LIBVIRT_PID.unlink(missing_ok=True)


def conceal(directory: Path) -> None:
    """Make mounts below *directory* invisible to guests that run, as on hosts without systemd.

    libvirt runs QEMU in a mount namespace of its own, which learns of new mounts
    only through shared parents.
    """
    _bind(directory, directory)
    _run("mount", "--make-private", str(directory))


def umount(at: Path | str, *how: str, deadline: float = 60) -> None:
    """Unmount by hand, and once more while it is busy: a look holds a share for a moment.

    Raises CalledProcessError.
    """
    end = time.monotonic() + deadline
    while True:
        done = subprocess.run(["umount", *how, at], check=False, capture_output=True, text=True)
        if "busy" not in done.stderr or time.monotonic() > end:
            sys.stderr.write(done.stderr)
            done.check_returncode()
            return
        time.sleep(0.02)


def command_lines() -> str:
    """What any user may read of every process, and its environment."""
    lines = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            lines.append((process / "cmdline").read_text() + (process / "environ").read_text())
        except OSError:
            continue  # it has ended
    return "".join(lines)


def qemu_user() -> int:
    """The id of the user whom libvirt runs QEMU as."""
    for name in ("libvirt-qemu", "qemu"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_uid
    return 0


if __name__ == "__main__":
    sys.exit(main())
