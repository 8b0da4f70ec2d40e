"""The machine of the lab itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from lab.images import CHECKOUT, cache
from lab.machine.container import Machine


def test_a_machine_boots_loses_power_boots_again_and_leaves_nothing(bare: Machine) -> None:
    assert bare.run("systemctl is-system-running").stdout == "running\n"
    assert bare.run("cat /proc/1/comm").stdout == "systemd\n"
    bare.run("echo kept >/var/kept; echo kept >/etc/kept; echo lost >/run/lost")
    bare.cut()
    assert not bare.running
    assert bare.raw("true", code=None) == ""
    bare.start()
    assert bare.run("cat /var/kept /etc/kept; ls /run/lost", code=2).stdout == "kept\nkept\n"
    bare.reboot()
    assert bare.run("last -x reboot | grep -c ^reboot; true").stdout
    bare.stop()
    assert not bare.running
    tree = next(cache().glob(f"tree-{bare.release}-*[0-9a-f]"))
    assert not (tree / "etc/kept").exists()
    assert not (tree / "var/kept").exists()


def test_who_is_killed_leaves_no_machine_behind(bare: Machine) -> None:
    code = (
        "import sys, time; from lab.machine.container import machine\n"
        f"with machine({bare.release!r}) as m:\n"
        "    m.start(); print(m.name, flush=True); time.sleep(600)"
    )
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=CHECKOUT)
    assert owner.stdout
    name = owner.stdout.readline().decode().strip()
    assert name
    assert (cache() / name).exists()
    owner.kill()
    owner.wait()
    for line in _command_lines():
        assert name not in line
    from lab.machine.container import machine

    with machine(bare.release):
        assert not (cache() / name).exists()
        assert not list(Path("/sys/fs/cgroup").rglob(f"moorline-lab-{name}"))
        assert bare.running  # which is somebody else's


def _command_lines() -> list[str]:
    import time

    time.sleep(2)
    lines = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(each.read_text())
        except OSError:
            continue
    return lines
