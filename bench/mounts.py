"""Many shares at once, each slow to mount, against the slowest of those mounts by itself.

What ours is compared with are the same commands, started at once by nothing but threads.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from bench.measure import Result, milliseconds, paired, slower
from lab import guest as guests
from lab import host
from lab.quobyte.cluster import Quobyte
from lab.virtuozzo.cluster import Virtuozzo
from moorline import wiring
from moorline.api import Moorline
from moorline.errors import MoorlineError
from moorline.model import Level

NAMES = ("quobyte", "virtuozzo", "hung")
ROUNDS = 3
SHARES = 20
SECONDS = 1.0
Connection = Mapping[str, Any]


class Farm:
    """Shares that take a second to mount, and a guest that wants a volume of each."""

    def __init__(self, moorline: Moorline, guest: str) -> None:
        self._moorline = moorline
        self._guest = guest

    def at_once(
        self, what: str, connections: Sequence[Connection], raw: Sequence[Sequence[str]]
    ) -> Result:
        """Connect all of them at once; *raw* are the commands that mount them."""

        def ours() -> float:
            took = milliseconds(lambda: _all(self._connect, connections))
            self._disconnect()
            return took

        return _result(what, *paired(ROUNDS, lambda: _slowest(raw), ours))

    def beside_a_hung_one(
        self, connections: Sequence[Connection], raw: Sequence[Sequence[str]]
    ) -> Result:
        """The same while the mount command of the first one hangs: the others' time."""

        def ours() -> float:
            with _pool(connections) as pool:
                stuck = pool.submit(self._connect, connections[0])
                took = milliseconds(lambda: _all(self._connect, connections[1:]))
                assert _fails(stuck), "the hung one came through"
            self._disconnect()
            return took

        what = f"{len(connections) - 1} shares while another one hangs"
        return _result(what, *paired(ROUNDS, lambda: _slowest(raw[1:]), ours))

    def _connect(self, connection: Connection) -> None:
        self._moorline.attachments.attach(self._guest, connection, level=Level.CONNECTED, timeout=5)

    def _disconnect(self) -> None:
        volumes = [view.volume for view in self._moorline.attachments.list()]
        _all(lambda volume: self._moorline.attachments.detach(self._guest, volume), volumes)


def run(connection: Any, wanted: Set[str]) -> Iterator[Result]:
    """What is *wanted* of :data:`NAMES`, in a lab host."""
    config = host.LAB / "mounts.conf"
    config.write_text("[libvirt]\nvzstorage_mount_user = root\nvzstorage_mount_group = root\n")
    domain = connection.defineXML(guests.domain_xml("farm", host.images(), host.SOCKETS))
    try:
        with wiring.open_host(wiring.settings([config])) as moorline:
            yield from _compare(Farm(moorline, "farm"), wanted)
    finally:
        domain.undefine()


def _compare(farm: Farm, wanted: Set[str]) -> Iterator[Result]:
    quobyte, virtuozzo = Quobyte(host.LAB), Virtuozzo(host.LAB)
    quobyte.command(takes=SECONDS)
    virtuozzo.command(takes=SECONDS)
    volumes = [quobyte.volume(f"farm{n}") for n in range(SHARES + 1)]
    clusters = [virtuozzo.cluster(f"farm{n}", servers=()) for n in range(SHARES + 1)]
    for share in (*volumes, *clusters):
        share.disk("disk")
    q = [volume.connection("disk", volume_id=f"q{n}") for n, volume in enumerate(volumes)]
    v = [cluster.connection("disk", volume_id=f"v{n}") for n, cluster in enumerate(clusters)]
    mount = [["mount.quobyte", volume.export] for volume in volumes]
    vstorage = [["vstorage-mount", "-c", cluster.name] for cluster in clusters]
    if "quobyte" in wanted:
        yield farm.at_once(f"{SHARES} Quobyte shares at once", q[1:], mount[1:])
    if "virtuozzo" in wanted:
        yield farm.at_once(f"{SHARES} Virtuozzo clusters at once", v[1:], vstorage[1:])
    if "hung" in wanted:
        volumes[0].command(hang=True)
        yield farm.beside_a_hung_one(q, mount)
    quobyte.clear()
    virtuozzo.clear()


def _slowest(commands: Sequence[Sequence[str]]) -> float:
    """Milliseconds that the slowest of these mount commands takes, all started at once."""
    with tempfile.TemporaryDirectory(dir=host.LAB) as directory, _pool(commands) as pool:
        places = [tempfile.mkdtemp(dir=directory) for _ in commands]

        def mount(command: Sequence[str], at: str) -> float:
            return milliseconds(lambda: subprocess.run([*command, at], check=True))

        slowest = max(pool.map(mount, commands, places))
        for at in places:
            subprocess.run(["umount", at], check=True)
    return slowest


def _pool(things: Sequence[Any]) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(len(things) or 1)


def _all(do: Callable[[Any], object], things: Sequence[Any]) -> None:
    with _pool(things) as pool:
        list(pool.map(do, things))


def _fails(future: Future[None]) -> bool:
    try:
        future.result()
    except MoorlineError:
        return True
    return False


def _result(what: str, single: float, took: float) -> Result:
    return slower(f"{what}, {SECONDS:g} s each (raw: the slowest mount)", single, took, 1.5)
