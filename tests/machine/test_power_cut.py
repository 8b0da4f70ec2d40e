"""Power that goes at any moment, and a reset: what was acknowledged is so, and nothing is left.

The moment is a seed's: after how many words of the machine's, and how long after that. A failure
names the seed; MOORLINE_TEST_SEED gives it back, and MOORLINE_TEST_CUTS says how many there are.
"""

from __future__ import annotations

import os
import random
import sys
import time

from lab.machine import servers
from lab.machine.servers import Iscsi, Nfs
from tests.support.real import Real

CUTS = int(os.environ.get("MOORLINE_TEST_CUTS") or 4)
SEED = int(os.environ.get("MOORLINE_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
GUEST = "web01"
WORDS = 12
"""The machine says as many while it attaches three volumes and detaches them."""
SECONDS = 4.0
SERIAL = f"{1:0<32x}"
LOOP = """
import itertools, os, subprocess, termios
port = os.open("/dev/ttyS0", os.O_WRONLY | os.O_NOCTTY)
def say(*words):
    os.write(port, ("\\nLAB " + " ".join(words) + "\\n").encode())
    termios.tcdrain(port)  # it is outside, whatever becomes of this machine
for verb in itertools.cycle(["attach", "detach"]):
    for volume in {volumes!r}:
        how = ["--connection", f"/root/cut/{{volume}}.json", "--bus", "scsi"]
        how = how if verb == "attach" else [volume]
        say("begins", verb, volume)
        if subprocess.run(["moorline", verb, "{guest}", *how]).returncode == 0:
            say("did", verb, volume)
"""
UNIT = """[Unit]
Description=the lab's servers, which have no machine of their own
Before=iscsid.service open-iscsi.service moorline-agent.service
After=sys-kernel-config.mount
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/bash -eu /root/cut/servers.sh
[Install]
WantedBy=multi-user.target
"""


def test_a_cut_at_any_moment_leaves_what_was_acknowledged_and_nothing_else(real: Real) -> None:
    moments = random.Random(SEED)
    volumes = prepare(real)
    for n in range(CUTS):
        deed = "cut" if n % 3 < 2 else "reset"
        after, seconds = moments.randrange(1, WORDS), moments.uniform(0, SECONDS)
        told = f"seed {SEED}: {deed} {n + 1} of {CUTS}, {seconds:.2f} s after word {after}"
        sys.stderr.write(f"{told}\n")
        said = interrupt(real, volumes, deed, after, seconds)
        try:
            converges(real, volumes, said)
        except AssertionError as e:
            raise AssertionError(f"{told}, which was: {said}\n{e}") from e
    real.run("systemctl disable lab-servers nfs-server")
    Iscsi(real.machine).remove(1)


def prepare(real: Real) -> list[str]:
    """Servers that come back with the machine, and connections of volumes on them."""
    nfs, iscsi = Nfs(real.machine), Iscsi(real.machine)
    volumes = [real.id() for _ in range(3)]
    connections = [nfs.connection(each, each, "vers=4.2") for each in volumes[:2]]
    connections.append(iscsi.connection(1, volumes[2]))
    real.run("mkdir -p /root/cut")
    for volume, connection in zip(volumes, connections, strict=True):
        servers.disk(real.machine, f"{nfs.directory}/{volume}")
        servers.put(real.machine, f"/root/cut/{volume}.json", connection)
    servers.disk(real.machine, "/srv/lun1")
    script = f"{iscsi.setup}\n{iscsi.adding(1, '/srv/lun1', SERIAL)}"
    real.run(f"cat >/root/cut/servers.sh <<'END'\n{script}\nEND")
    real.run(f"cat >/root/cut/loop.py <<'END'\n{LOOP.format(volumes=volumes, guest=GUEST)}\nEND")
    real.run(f"cat >/etc/systemd/system/lab-servers.service <<'END'\n{UNIT}\nEND")
    real.run("systemctl daemon-reload; systemctl enable lab-servers nfs-server")
    real.run("systemctl start lab-servers nfs-server")
    real.guest(GUEST)
    real.run("sync")
    return volumes


def interrupt(
    real: Real, volumes: list[str], deed: str, after: int, seconds: float
) -> list[list[str]]:
    """Attach and detach all the time, take the power away, boot again; what the machine said."""
    console = real.machine.directory / "console.log"
    began = console.stat().st_size

    def words() -> list[list[str]]:
        lines = console.read_bytes()[began:].decode(errors="replace").splitlines()
        found = [line.split()[1:] for line in lines if line.startswith("LAB ")]
        return [each for each in found if len(each) == 3]  # the last may be cut as well

    real.run("dmesg -n 1")  # the kernel's words would come between
    real.run("systemd-run --quiet --unit=lab-loop python3 /root/cut/loop.py")
    real.await_(lambda: len(words()) >= after, 600)
    time.sleep(seconds)
    (real.machine.cut if deed == "cut" else real.machine.reset)()
    said = words()
    real.machine.start()
    return said


def converges(real: Real, volumes: list[str], said: list[list[str]]) -> None:
    """What was done is so; all comes to what is wanted; and it can be taken away again."""
    sound = "sqlite3 /var/lib/moorline/moorline.db 'pragma integrity_check'"
    assert real.run(sound).stdout == "ok\n"
    rows = real.rows()
    for volume in volumes:
        mine = [(words[0], words[1]) for words in said if words[2] == volume]
        if mine and mine[-1] == ("did", "attach"):
            assert rows.get(volume, ("absent",))[0] == "attached", rows
        if mine and mine[-1] == ("did", "detach"):
            assert volume not in rows, rows

    real.guest(GUEST)
    real.await_(lambda: all(wanted == seen for wanted, seen in real.rows().values()), 600)
    real.moorline("doctor")
    rows = real.rows()
    assert disks(real) == set(rows)
    for volume in rows:
        real.moorline(f"detach {GUEST} {volume}")
    assert disks(real) == set()
    real.strike()
    assert real.run("iscsiadm -m session 2>/dev/null; true").stdout == ""
    assert real.run("ls /var/lib/moorline/os-brick | grep ^moorline; true").stdout == ""


def disks(real: Real) -> set[str]:
    """The serials of what the guest has, running and for its next start."""
    find = "grep -o '<serial>[^<]*' | cut -d'>' -f2; true"
    kinds = [
        set(real.run(f"virsh dumpxml {how} {GUEST} | {find}").stdout.split())
        for how in ("", "--inactive")
    ]
    assert kinds[0] == kinds[1], kinds
    return kinds[0]
