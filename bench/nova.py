"""The plug-in beside Nova's own volume drivers: the same shares, by the same calls, in one run.

``MOORLINE_BENCH_NOVA=PYTHON``, a Python that has Nova and the plug-in (``make test-nova`` makes
one), adds this to ``make bench``. Ours asks a real agent over its socket.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bench.measure import Result, slower
from lab import host
from lab.command import Moorline
from lab.quobyte.cluster import Quobyte
from lab.virtuozzo.cluster import Virtuozzo
from moorline.errors import Unavailable
from moorline.local_api.client import Client

NAMES = ("nova",)
SHARES = 20
SECONDS = 1.0
RAW = "in Nova (raw: Nova's own driver)"
Connection = Mapping[str, Any]
Took = Mapping[str, float]


def run(connection: Any, wanted: Set[str]) -> Sequence[Result]:
    """All comparisons, in a lab host; none without a Python that has Nova."""
    python = os.environ.get("MOORLINE_BENCH_NOVA")
    return _compare(Drivers(python)) if python else []


class Drivers:
    """Volume drivers in the hands of that Python."""

    def __init__(self, python: str) -> None:
        self._python = python

    def both(self, kind: str, what: str, connections: Sequence[Connection]) -> tuple[Took, Took]:
        """Seconds by name that ours took for *what*, and Nova's driver for *kind*."""
        with tempfile.TemporaryDirectory(dir=host.LAB) as directory:
            with _agent(Path(directory)):
                ours = self._measure("moorline", what, directory, connections)
            theirs = self._measure(kind, what, directory, connections)
            for at in Path(directory).iterdir():
                subprocess.run(["umount", at], check=False, stderr=subprocess.DEVNULL)
        return ours, theirs

    def _measure(
        self, kind: str, what: str, directory: str, connections: Sequence[Connection]
    ) -> Took:
        done = subprocess.run(
            [self._python, "-W", "ignore", "-m", "bench.nova_drivers", kind, what, directory],
            input=json.dumps(connections),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        told: Took = json.loads(done.stdout.splitlines()[-1])
        return told


@contextmanager
def _agent(directory: Path) -> Iterator[None]:
    config = directory / "agent.conf"
    config.write_text("[libvirt]\nvzstorage_mount_user = root\nvzstorage_mount_group = root\n")
    log = (directory / "agent.log").open("w")
    command = Moorline(directory / "state")
    socket = directory / "agent.sock"
    agent = command.start(
        "agent", "--socket", str(socket), "--config-file", str(config), stderr=log
    )
    try:
        for _ in range(300):
            with suppress(Unavailable):
                Client(socket).about()
                break
            time.sleep(0.1)
        yield
    finally:
        agent.terminate()
        agent.wait(90)


def _compare(drivers: Drivers) -> list[Result]:
    quobyte, virtuozzo = Quobyte(host.LAB), Virtuozzo(host.LAB)
    quobyte.command(takes=SECONDS)
    virtuozzo.command(takes=SECONDS)
    volumes = [quobyte.volume(f"nova{n}") for n in range(SHARES + 1)]
    clusters = [virtuozzo.cluster(f"nova{n}", servers=()) for n in range(SHARES + 1)]
    for share in (*volumes, *clusters):
        share.disk("disk")
    q = [volume.connection("disk", volume_id=f"q{n}") for n, volume in enumerate(volumes)]
    v = [cluster.connection("disk", volume_id=f"v{n}") for n, cluster in enumerate(clusters)]
    results = [
        _at_once("Quobyte shares", 10, *drivers.both("quobyte", "at_once", q)),
        # Nova's privileged calls are as many at once as there are processors: most of what
        # that costs, 8 times as fast with two of them.
        _at_once(
            "Virtuozzo clusters",
            0.8 * SHARES / (os.cpu_count() or 1),
            *drivers.both("vzstorage", "at_once", v),
        ),
    ]
    quobyte.command()
    volumes[0].disk("second")
    pair = [q[0], volumes[0].connection("second", volume_id="second")]
    results += _one_by_one(*drivers.both("quobyte", "one_by_one", pair))
    quobyte.clear()
    virtuozzo.clear()
    return results


def _at_once(what: str, goal: float, ours: Took, theirs: Took) -> Result:
    took, raw = ours["at_once"], theirs["at_once"]
    what = f"{SHARES} {what} at once, {SECONDS:g} s each {RAW}"
    return Result(what, took, raw, "s", took / raw, f"≤ {1 / goal:g}×", raw / took >= goal)


def _one_by_one(ours: Took, theirs: Took) -> Iterator[Result]:
    """In milliseconds: as fast as Nova's where a command runs, else within a budget."""
    raw, took = ({name: 1000 * each for name, each in them.items()} for them in (theirs, ours))
    yield slower(f"a share is mounted {RAW}", raw["mount"], took["mount"], 1.25)
    for name, what, most in (
        ("mounted", "the share is mounted already", 2),
        ("let_go", "both volumes of a share are let go", 50),
    ):
        ratio, met = took[name] / raw[name], took[name] <= most
        yield Result(f"{what} {RAW}", took[name], raw[name], "ms", ratio, f"≤ {most} ms", met)
