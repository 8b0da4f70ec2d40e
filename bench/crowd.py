"""One host with much on it: a thousand volumes on five hundred guests, ten shares.

What each command costs there is compared with one raw look at all guests: it must not look
at them once for each volume. Some of the guests run and are paused, the others do not run.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import agent
from bench.agent import ATTACHMENTS, GUESTS, SHARES
from bench.measure import Result, milliseconds, paired, slower
from lab import host
from lab.quobyte.cluster import Quobyte, QuobyteVolume
from moorline import config, installed, wiring
from moorline.api import Moorline
from moorline.core.records import Records
from moorline.host.linux import Linux
from moorline.model import Attachment, Level
from moorline.stores.codec import Codec
from moorline.stores.sqlite import SqliteStore

NAMES = ("crowd",)
ROUNDS = 7
MAX_RUNNING, GUEST_MIB = 50, 200
LIST, DOCTOR, SWEEP, DETACH = 2.0, 4.4, 1.8, 1.9


def run(connection: Any, wanted: Set[str]) -> Iterator[Result]:
    """All comparisons, in a lab host."""
    with _everything_attached(connection) as (moorline, shares, alone):

        def raw() -> float:
            return milliseconds(lambda: [each.XMLDesc() for each in connection.listAllDomains()])

        def compared(what: str, ours: Callable[[], float], most: float) -> Result:
            raw_ms, ours_ms = paired(ROUNDS, raw, ours)
            whole = f"{what}, {ATTACHMENTS} attachments on {GUESTS} guests (raw: XMLDesc of all)"
            return slower(whole, raw_ms, ours_ms, most)

        def detach() -> float:
            """The last of a share, which then goes."""
            moorline.attachments.attach("sweep0", alone, level=Level.CONNECTED)
            return milliseconds(lambda: moorline.attachments.detach("sweep0", "alone"))

        attachments, doctor = moorline.attachments, moorline.maintenance.doctor
        yield compared("list", lambda: milliseconds(attachments.list), LIST)
        yield compared("doctor", lambda: milliseconds(doctor), DOCTOR)
        yield compared("sweep, idle", lambda: milliseconds(attachments.sweep), SWEEP)
        yield compared("detach the last of a share", detach, DETACH)
        shares[0].daemon(error={"*": "ENOTCONN"})
        try:
            yield compared("list, a share is dead", lambda: milliseconds(attachments.list), LIST)
            yield compared("doctor, a share is dead", lambda: milliseconds(doctor), DOCTOR)
        finally:
            shares[0].daemon()


@contextmanager
def _everything_attached(
    connection: Any,
) -> Iterator[tuple[Moorline, Sequence[QuobyteVolume], dict[str, Any]]]:
    """Two volumes for each guest, on mounted shares, wanted and in the definitions.

    As many guests as fit into half of the memory that is left run, paused.
    """
    quobyte = Quobyte(host.LAB)
    shares = [quobyte.volume(f"crowd{n}") for n in range(SHARES)]
    lonely = quobyte.volume("lonely")
    lonely.disk("alone")
    with tempfile.TemporaryDirectory(dir=host.LAB) as directory:
        Path(directory).chmod(0o711)  # QEMU's user must get through
        settings = wiring.settings(state_dir=Path(directory))
        with wiring.open_host(settings) as moorline:
            rows = _recorded(settings, shares)
            domains = [connection.defineXML(agent.guest(rows[n::GUESTS])) for n in range(GUESTS)]
            moorline.attachments.sweep()  # mounts them
            running = domains[: min(MAX_RUNNING, _available_mib() // (2 * GUEST_MIB))]
            for n in range(ATTACHMENTS):
                if n % GUESTS < len(running):
                    shares[n % SHARES].disk(f"volume-{n}")
            for domain in running:
                domain.createWithFlags(1)  # VIR_DOMAIN_START_PAUSED
            assert moorline.attachments.sweep() == []
            try:
                yield moorline, shares, lonely.connection("alone", volume_id="alone")
            finally:
                for domain in running:
                    domain.destroy()
                for domain in domains:
                    domain.undefine()
                for row in rows:
                    moorline.attachments.detach(row.key.guest, row.key.volume)
    quobyte.clear()


def _available_mib() -> int:
    text = Path("/proc/meminfo").read_text()
    return int(text.partition("MemAvailable:")[2].split()[0]) >> 10


def _recorded(settings: config.Settings, shares: Sequence[QuobyteVolume]) -> list[Attachment]:
    store = SqliteStore(settings.state_dir / "moorline.db")
    codec = Codec.from_file(settings.state_dir / "key")
    records = Records(store, codec, config.host_name(settings))
    linux = Linux()
    backend = installed.InstalledBackends(linux, settings.values)["quobyte"]
    made = [agent.row(backend, shares[n % SHARES], n) for n in range(ATTACHMENTS)]
    made = [replace(row, key=row.key._replace(host=records.host)) for row in made]
    rows = [records.put(row) for row in made]
    linux.close()
    store.close()
    return rows
