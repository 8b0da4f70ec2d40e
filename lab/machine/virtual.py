"""One machine with a kernel of its own: QEMU, booted from a disk of disk.py.

It has loopback alone, as containers have, and its servers, clients and guests are all in it.
Its disk forgets at a power cut what was not flushed: QEMU keeps the map of newly written clusters
of the machine's layer (qcow2) in its memory until the kernel flushes.

Emulated (TCG) where KVM does not work. Never ``tsc=reliable`` then: the virtual CPUs' counters
differ, the kernel sees that ("Marking TSC unstable") and takes the HPET, but believing them
it has a clock that jumps back, and boots stand still.
"""

from __future__ import annotations

import contextlib
import fcntl
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from lab import images
from lab.images import cache
from lab.machine import disk
from lab.machine.container import ENVIRONMENT, Down
from lab.machine.disk import Disk
from lab.machine.monitor import Monitor
from lab.machine.qga import GuestAgent, Silent

STILL_SECONDS = 240.0
"""A machine that boots and says nothing new on its console stands still."""
BOOT_SECONDS = 1800.0
"""A kernel that stands still may say so again and again."""
TRIES = 3
"""QEMU 7.2's emulation of two CPUs was seen to panic the kernel in its first second."""
AGENT, SHELL, QEMU_PID = "agent", "shell", "pid-of-qemu"
"""In a machine's directory: sockets of its guest agent and of its console, and a process."""
MEMORY_MIB = 2048


class Virtual:
    """A virtual machine, in a directory of its own. Not yet running."""

    def __init__(self, base: Disk, directory: Path) -> None:
        self.directory = directory
        self.name = directory.name
        self._base = base
        self._agent = GuestAgent(directory / AGENT)
        self._monitor = Monitor(directory / "monitor")
        self._process: subprocess.Popen[bytes] | None = None
        create = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(base.root)]
        subprocess.run([*create, str(directory / "layer")], check=True)

    # --- its life -----------------------------------------------------------

    def start(self) -> None:
        """Boot it, again if it stands still or panics; return when all is started. Raises Down."""
        for attempt in range(TRIES):
            self._power_on()
            try:
                return self._await()
            except Down as e:
                self.cut()
                if attempt + 1 == TRIES:
                    raise
                print(f"lab: {e}\nlab: once more", file=sys.stderr, flush=True)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def reboot(self, deadline: float = 240) -> None:
        """Reboot it as an operator does. Raises Down."""
        self._down("reboot", deadline)
        self.start()

    def stop(self, deadline: float = 240) -> None:
        """Switch it off as an operator does. Raises Down."""
        self._down("poweroff", deadline)

    def cut(self) -> None:
        """Take its power away: at once, and with it all that was not flushed."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def reset(self, deadline: float = 60) -> None:
        """Press its reset button: nothing in it is asked, and its disk keeps what was written."""
        assert self._process is not None
        self._monitor.do("system_reset")
        self._process.wait(deadline)

    def _power_on(self) -> None:
        assert not self.running, f"{self.name} runs"
        accelerator = ["-accel", "tcg,thread=multi", "-cpu", "max,la57=off"]
        if images.build().kvm:
            accelerator = ["-accel", "kvm", "-cpu", "host"]
        append = "console=ttyS0 panic=-1 mitigations=off random.trust_cpu=on"
        qemu = ["qemu-system-x86_64", "-name", self.name, "-M", "q35", *accelerator]
        qemu += ["-m", str(MEMORY_MIB), "-smp", "2", "-nodefaults", "-no-user-config"]
        qemu += ["-display", "none", "-no-reboot", "-append", append]
        qemu += ["-kernel", str(self._base.kernel), "-initrd", str(self._base.initramfs)]
        qemu += ["-drive", f"file={self.directory}/layer,if=none,id=root,cache=writeback"]
        qemu += ["-device", "virtio-blk-pci,drive=root", "-device", "virtio-rng-pci"]
        qemu += ["-chardev", f"socket,id=agent,path={AGENT},server=on,wait=off"]
        qemu += ["-device", "virtio-serial-pci"]
        qemu += ["-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"]
        # Its shell (lab/machine/cli.py).
        qemu += ["-chardev", f"socket,id=shell,path={SHELL},server=on,wait=off"]
        qemu += ["-device", "virtconsole,chardev=shell"]
        qemu += ["-qmp", "unix:monitor,server=on,wait=off", "-pidfile", QEMU_PID]
        qemu += ["-chardev", f"file,id=console,path={self.directory}/console.log,append=on"]
        qemu += ["-serial", "chardev:console"]
        with (self.directory / "qemu.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *qemu],
                cwd=self.directory,  # a socket's path has 107 bytes at most
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _down(self, verb: str, deadline: float) -> None:
        assert self._process is not None
        self.run(f"systemctl --no-block {verb}")
        try:
            self._process.wait(deadline)
        except subprocess.TimeoutExpired:
            raise Down(f"{self.name}: no {verb} in {deadline} s\n{self.console()}") from None

    def _await(self) -> None:
        log = self.directory / "console.log"
        state, said = "its agent does not answer", 0
        end = time.monotonic() + BOOT_SECONDS
        still = time.monotonic() + STILL_SECONDS
        while time.monotonic() < min(end, still) and self.running:
            with contextlib.suppress(Silent):
                self._agent.ping(5)
                state = self.run("systemctl is-system-running", code=None).stdout.strip()
                if state in ("running", "degraded"):
                    return
            if (now := _said(log)) != said:
                said, still = now, time.monotonic() + STILL_SECONDS
            time.sleep(2)  # to ask costs an emulated machine time
        raise Down(f"{self.name} does not come up ({state})\n{self.console()}")

    # --- what runs in it ----------------------------------------------------

    def run(
        self, command: str, *, code: int | None = 0, deadline: float = 240, user: str = "root"
    ) -> subprocess.CompletedProcess[str]:
        """Run *command*, a shell's. Another exit code than *code* (None: any) is an AssertionError.

        Raises Silent, and subprocess.TimeoutExpired, whereupon the command is killed.
        """
        words = ["bash", "-c", command]
        if user != "root":
            words = ["runuser", "-l", user, "-c", command]
        ran = self._agent.run(words, ENVIRONMENT, deadline)
        if code is not None and ran.returncode != code:
            told = f"{command}: exit {ran.returncode}\n{ran.stdout}{ran.stderr}"
            raise AssertionError(f"{self.name}: {told}")
        return ran

    def console(self) -> str:
        """The end of what it wrote to its console."""
        log = self.directory / "console.log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-30:]) if log.exists() else ""


@contextlib.contextmanager
def machine(release: str) -> Iterator[Virtual]:
    """A virtual machine of *release*, not yet running; nothing of it is left afterwards.

    Raises Unavailable, where there can be none.
    """
    base = disk.build(release)
    _sweep()
    here = cache() / f"virtual-{secrets.token_hex(4)}"
    here.mkdir()
    with (here / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = Virtual(base, here)
        try:
            yield made
        finally:
            made.cut()
            shutil.rmtree(here)


def _said(log: Path) -> int:
    """How much is on the console, but for what systemd repeats each second while it waits."""
    lines = log.read_bytes().split(b"\n") if log.exists() else []
    return sum(len(line) for line in lines if b"] Job " not in line)


def _sweep() -> None:
    """Remove what a run that was killed left; its QEMU died with it."""
    for old in cache().glob("virtual-*"):
        with contextlib.suppress(OSError), (old / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(old)
