"""One machine: a container whose process 1 is the distribution's own systemd.

A tree (tree.py) is the lower layer, and what the machine writes goes to a layer of its own; its
``/var`` is a real file system's. Below ``/run/moorline-lab`` it sees the lab's storage, which
lies outside of it and outlives its power cuts, and below ``/opt/moorline-lab`` the stand-ins.

The kernel is that of this machine, so a power cut (SIGKILL to all of it) loses no data that was
written and not synced. It has no network but loopback.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from lab.images import CHECKOUT, cache
from lab.machine import guest, tree
from lab.machine.tree import Forbidden

LAB = "/run/moorline-lab"
"""Where the stand-ins find the lab's storage (lab/standin.py), inside."""
SOFTWARE = "/opt/moorline-lab"
SOURCE = "/root/moorline"
"""A copy of the checkout, inside."""
COPIED = ("LICENSE", "README.md", "docs", "packaging", "pyproject.toml", "src")
FUSECTL = Path("/sys/fs/fuse/connections")
REBOOT = 133
"""What systemd-nspawn ends with when the machine reboots."""
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "TERM": os.environ.get("TERM", "dumb"),
}
_HIERARCHIES = Path("/sys/fs/cgroup")
_BOOT = """
mkdir "$group"
echo 0 > "$group/cgroup.procs"
mount -t overlay -o "lowerdir=$tree,upperdir=$here/upper,workdir=$here/work" lab "$here/root"
[ ! -d $fusectl ] || mountpoint -q $fusectl || mount -t fusectl fusectl $fusectl
exec script -qefc "$nspawn" /dev/null
"""


_CONTROLLERS = """\
# libvirt keeps guests in machine.slice, where a group has a controller; a kernel whose
# controllers are all in the older hierarchies has none to show, but for this.
[Unit]
Before=libvirtd.service
[Service]
Type=oneshot
RemainAfterExit=yes
RuntimeDirectory=lab-controllers
RuntimeDirectoryPreserve=yes
ExecStart=sh -euc 'cd /sys/fs/cgroup; ! grep -q . cgroup.controllers || exit 0; \
  echo misc >/run/lab-controllers/names; mount --bind /run/lab-controllers/names cgroup.controllers'
"""


class Down(Exception):
    """The machine does not run, or did not do in time what it was told."""


class Machine:
    """A machine of *tree*, of *release*, in a directory of its own. Not yet running."""

    def __init__(self, release: str, directory: Path, tree: Path) -> None:
        self.release = release
        self.directory = directory
        self.name = directory.name
        self.lab = directory / "lab"
        """The lab's storage and the guests' serial ports, seen from outside."""
        self.var = directory / "var"
        self._tree = tree
        self._group = _cgroup(self.name)
        self._process: subprocess.Popen[bytes] | None = None
        self._furnish()

    # --- its life -----------------------------------------------------------

    def start(self, deadline: float = 120) -> None:
        """Boot it; return when systemd has started everything. Raises Down."""
        assert not self.running, f"{self.name} runs"
        _clear(self._group)
        self._forget_owners()
        nspawn = ["systemd-nspawn", "-q", "--register=no", "--keep-unit", "--boot"]
        nspawn += ["--private-network", "--capability=all", "--system-call-filter=@mount"]
        nspawn += ["--bind=/dev/fuse", f"--bind={self.var}:/var", f"--bind={self.lab}:{LAB}"]
        nspawn += [f"--bind-ro={CHECKOUT / 'lab'}:{SOFTWARE}/lab"]
        if FUSECTL.exists():
            nspawn += [f"--bind={FUSECTL}"]
        nspawn += ["-D", str(self.directory / "root"), f"--machine={self.name}"]
        command = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork"]
        command += ["--kill-child", "--mount-proc", "--propagation", "private"]
        given = {
            "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
            "group": str(self._group),
            "tree": str(self._tree),
            "here": str(self.directory),
            "fusectl": str(FUSECTL),
            "nspawn": shlex.join(nspawn),
        }
        with (self.directory / "console.log").open("ab") as console:
            self._process = subprocess.Popen(
                [*command, "bash", "-euc", _BOOT],
                env={**ENVIRONMENT, **given},
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        self._await(time.monotonic() + deadline)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def reboot(self, deadline: float = 180) -> float:
        """Reboot it as an operator does; return the seconds it took to go down. Raises Down."""
        took = self._down("reboot", REBOOT, deadline)
        self.start()
        return took

    def stop(self, deadline: float = 180) -> float:
        """Switch it off as an operator does; return the seconds that took. Raises Down."""
        return self._down("poweroff", 0, deadline)

    def cut(self) -> None:
        """Take its power away: everything in it is gone at once."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait()
        _clear(self._group)

    def _down(self, verb: str, code: int, deadline: float) -> float:
        began = time.monotonic()
        assert self._process is not None
        self.raw("systemctl", "--no-block", verb)
        try:
            ended = self._process.wait(deadline)
        except subprocess.TimeoutExpired:
            raise Down(f"{self.name}: no {verb} in {deadline} s\n{self.console()}") from None
        if ended != code:
            raise Down(f"{self.name}: {verb} ended with {ended}\n{self.console()}")
        return time.monotonic() - began

    def _forget_owners(self) -> None:
        """Drop what libvirt noted of who had a file before: a note is void once the kernel booted.

        It compares the kernel's boot time, and the kernel of a container boots never.
        """
        for path in self.lab.rglob("*"):
            for name in os.listxattr(path, follow_symlinks=False):
                if name.startswith("trusted.libvirt.security."):
                    os.removexattr(path, name, follow_symlinks=False)

    def _await(self, end: float) -> None:
        while time.monotonic() < end and self.running:
            state = self.raw("systemctl", "is-system-running", code=None)
            if state in ("running", "degraded"):
                return
            time.sleep(0.1)
        told = self.raw("systemctl", "list-jobs", code=None) if self.running else "it is down"
        raise Down(f"{self.name} does not come up: {told}\n{self.console()}")

    # --- what runs in it ----------------------------------------------------

    def run(
        self, command: str, *, code: int | None = 0, deadline: float = 120, user: str = "root"
    ) -> subprocess.CompletedProcess[str]:
        """Run *command*, a shell's, as somebody who is logged in does.

        Another exit code than *code* (None: any) is an AssertionError. Raises Down, and
        subprocess.TimeoutExpired, whereupon the command is killed.
        """
        words = ["systemd-run", "--scope", "--quiet", "--collect", "--slice=user.slice", "--"]
        if user != "root":
            command = f"exec runuser -l {shlex.quote(user)} -c {shlex.quote(command)}"
        return self._inside([*words, "bash", "-c", command], command, code, deadline)

    def raw(self, *command: str, code: int | None = 0, deadline: float = 30) -> str:
        """Run *command* without systemd's help; return what it printed."""
        try:
            ran = self._inside(command, shlex.join(command), code, deadline)
        except Down:
            return ""
        return ran.stdout.strip()

    def _inside(
        self, command: Sequence[str], told: str, code: int | None, deadline: float
    ) -> subprocess.CompletedProcess[str]:
        process = subprocess.Popen(
            self.entering(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            out, err = process.communicate(timeout=deadline)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise
        if code is not None and process.returncode != code:
            raise AssertionError(f"{self.name}: {told}: exit {process.returncode}\n{out}{err}")
        return subprocess.CompletedProcess(told, process.returncode, out, err)

    def entering(self, command: Sequence[str]) -> list[str]:
        """The command that runs *command* in the machine. Raises Down."""
        if self._process is None:
            raise Down(f"{self.name} does not run")
        return entering(init_of(self._process.pid), command)

    def gone(self, within: float) -> bool:
        """Whether it is down, or goes down in so many seconds."""
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(within)
        return not self.running

    def console(self) -> str:
        """The end of what it wrote to its console."""
        log = self.directory / "console.log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-30:]) if log.exists() else ""

    # --- what it is made of -------------------------------------------------

    def _furnish(self) -> None:
        for name in ("upper", "work", "root", "lab", "lab/sockets"):
            (self.directory / name).mkdir()
        (self.lab / "sockets").chmod(0o777)
        subprocess.run(["cp", "-a", str(self._tree / "var"), str(self.directory)], check=True)
        guest.furnish(self.lab / "guest")
        upper = self.directory / "upper"
        commands = upper / "usr/local/bin"
        commands.mkdir(parents=True)
        for command in sorted((CHECKOUT / "lab/commands").iterdir()):
            (commands / command.name).symlink_to(f"{SOFTWARE}/lab/commands/{command.name}")
        # virtlogd stops before the guests do, and a guest's last words on its console were lost.
        libvirt = upper / "etc/libvirt"
        libvirt.mkdir(parents=True)
        qemu = (self._tree / "etc/libvirt/qemu.conf").read_text()
        (libvirt / "qemu.conf").write_text(f'{qemu}\nstdio_handler = "file"\n')
        units = upper / "etc/systemd/system"
        (units / "libvirtd.service.wants").mkdir(parents=True)
        (units / "lab-controllers.service").write_text(_CONTROLLERS)
        (units / "libvirtd.service.wants/lab-controllers.service").symlink_to(
            "../lab-controllers.service"
        )
        source = upper / SOURCE.lstrip("/")
        source.mkdir(parents=True)
        (upper / "root").chmod(0o700)
        for name in COPIED:
            each = CHECKOUT / name
            if each.is_dir():
                skipped = shutil.ignore_patterns("__pycache__", "*.egg-info")
                shutil.copytree(each, source / name, ignore=skipped)
            else:
                shutil.copyfile(each, source / name)


def init_of(pid: int) -> int:
    """Process 1 of the machine that *pid* has started, as it is known outside. Raises Down."""
    ours = len(_namespaced(os.getpid()))
    for each in _descendants(pid):
        ids = _namespaced(each)
        if len(ids) == ours + 2 and ids[-1] == "1":
            return each
    raise Down("the machine does not run")


def entering(init: int, command: Sequence[str]) -> list[str]:
    """The command that runs *command* in the machine whose process 1 is *init*."""
    enter = ["nsenter", "-t", str(init), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w"]
    words = [f"{key}={value}" for key, value in ENVIRONMENT.items()]
    return [*enter, "--", "env", "-i", *words, *command]


def _namespaced(pid: int) -> list[str]:
    """The ids of a process, in each of the namespaces that know it, the outermost first."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return []
    return next((line.split()[1:] for line in lines if line.startswith("NSpid:")), [])


def _descendants(pid: int) -> Iterator[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return
    for child in children:
        yield int(child)
        yield from _descendants(int(child))


def _clear(group: Path, deadline: float = 60) -> None:
    """Remove a control group, as soon as what was in it has ended. Raises Down."""
    end = time.monotonic() + deadline
    # Where a machine has older hierarchies, systemd-nspawn makes one of that name in them, too.
    for each in (group, *_HIERARCHIES.glob(f"*/{group.name}")):
        _clear_one(each, end)


def _clear_one(group: Path, end: float) -> None:
    while group.exists():
        for each in sorted((e for e in group.rglob("*") if e.is_dir()), reverse=True):
            with contextlib.suppress(OSError):
                each.rmdir()
        try:
            group.rmdir()
        except OSError as e:
            if time.monotonic() > end:
                raise Down(f"{group.name}: something of it is left: {e}") from e
            time.sleep(0.05)


def _cgroup(name: str) -> Path:
    """The control group of a machine, in the one hierarchy that systemd uses now."""
    for place in (_HIERARCHIES, _HIERARCHIES / "unified"):
        if (place / "cgroup.procs").exists() and (place / "cgroup.controllers").exists():
            return place / f"moorline-lab-{name}"
    raise Forbidden("this machine has no cgroup v2")


@contextlib.contextmanager
def machine(release: str, lower: Path | None = None) -> Iterator[Machine]:
    """A machine of *release*, not yet running; nothing of it is left afterwards.

    *lower*: a tree other than the usual one. Raises Unavailable, where there can be none.
    """
    tree.check()
    _sweep()
    lower = lower or tree.build(release)
    here = cache() / f"machine-{secrets.token_hex(4)}"  # systemd takes no underscore in a name
    here.mkdir()
    with (here / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made: Machine | None = None
        try:
            made = Machine(release, here, lower)
            yield made
        finally:
            if made is not None:
                made.cut()
            _remove(here)


def _sweep() -> None:
    """Remove what a run that was killed left."""
    for old in cache().glob("machine-*"):
        with contextlib.suppress(OSError, Down), (old / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(old)


def _remove(here: Path) -> None:
    """Remove a machine that does not run any more. Raises Down: something of it still does."""
    _clear(_cgroup(here.name))  # whoever was killed had no time for it
    # Mount points of Moorline's are immutable while nothing is mounted on them.
    subprocess.run(
        ["chattr", "-R", "-f", "-i", str(here / "var"), str(here / "upper")], check=False
    )
    shutil.rmtree(here)
