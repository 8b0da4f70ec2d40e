"""One host with much on it: a thousand volumes on five hundred guests, ten shares.

What each command costs there is compared with one raw look at all guests: it must not look
at them once for each volume. The guests are defined and do not run.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import agent
from bench.agent import ATTACHMENTS, GUESTS, SHARES
from bench.measure import Result, milliseconds, paired, slower
from lab import host
from lab.quobyte.cluster import Quobyte, QuobyteVolume
from moorline import config, registry, wiring
from moorline.api import Moorline
from moorline.core.records import Records
from moorline.host.linux import Linux
from moorline.model import Attachment, Level
from moorline.stores.codec import Codec
from moorline.stores.sqlite import SqliteStore

ROUNDS = 7
LIST, DOCTOR, SWEEP, DETACH = 2.0, 4.4, 1.8, 1.9


def run(connection: Any) -> list[Result]:
    """All comparisons, in a lab host."""
    with _everything_attached(connection) as (moorline, alone):

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
        return [
            compared("list", lambda: milliseconds(attachments.list), LIST),
            compared("doctor", lambda: milliseconds(doctor), DOCTOR),
            compared("sweep, idle", lambda: milliseconds(attachments.sweep), SWEEP),
            compared("detach the last of a share", detach, DETACH),
        ]


@contextmanager
def _everything_attached(connection: Any) -> Iterator[tuple[Moorline, dict[str, Any]]]:
    """Two volumes for each guest, on mounted shares, wanted and in the definitions."""
    quobyte = Quobyte(host.LAB)
    shares = [quobyte.volume(f"crowd{n}") for n in range(SHARES)]
    lonely = quobyte.volume("lonely")
    lonely.disk("alone")
    with tempfile.TemporaryDirectory(dir=host.LAB) as directory:
        settings = wiring.settings(state_dir=Path(directory))
        with wiring.open_host(settings) as moorline:
            rows = _recorded(settings, shares)
            domains = [connection.defineXML(agent.guest(rows[n::GUESTS])) for n in range(GUESTS)]
            moorline.attachments.sweep()  # mounts them
            assert moorline.attachments.sweep() == []
            try:
                yield moorline, lonely.connection("alone", volume_id="alone")
            finally:
                for domain in domains:
                    domain.undefine()
                for row in rows:
                    moorline.attachments.detach(row.key.guest, row.key.volume)
    quobyte.clear()


def _recorded(settings: config.Settings, shares: Sequence[QuobyteVolume]) -> list[Attachment]:
    store = SqliteStore(settings.state_dir / "moorline.db")
    codec = Codec.from_file(settings.state_dir / "key")
    records = Records(store, codec, config.host_name(settings))
    linux = Linux()
    backend = registry.InstalledBackends(linux, settings.values)["quobyte"]
    made = [agent.row(backend, shares[n % SHARES], n) for n in range(ATTACHMENTS)]
    made = [replace(row, key=row.key._replace(host=records.host)) for row in made]
    rows = [records.put(row) for row in made]
    linux.close()
    store.close()
    return rows
