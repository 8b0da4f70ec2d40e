"""``make bench``: measure, print the table, keep it in docs/performance.md."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import libvirt

from bench import agent, attach, command, crowd, mounts, nova
from bench.measure import HEAD, Result, machine, ratios

PAGE = Path(__file__).parents[1] / "docs/performance.md"
TEMPLATE = Path(__file__).with_name("page.md")


def main() -> int:
    libvirt.registerErrorHandler(lambda *_: None, None)
    connection = libvirt.open("qemu:///system")
    results = [
        *attach.run(connection),
        *command.run(connection),
        *mounts.run(connection),
        *agent.run(connection),
        *crowd.run(connection),
        *nova.run(),
    ]
    table = "\n".join([HEAD, *(result.row() for result in results)])
    print(table)
    before = ratios(PAGE.read_text())
    worse = [result for result in results if result.is_worse_than(before.get(result.what))]
    for result in worse:
        print(f"a quarter worse than on the page ({before[result.what]:.2f}×): {result.what}")
    PAGE.write_text(
        TEMPLATE.read_text().format(
            table=table,
            date=datetime.now(UTC).date(),
            machine=machine(),
            libvirt=_version(connection.getLibVersion()),
            qemu=_version(connection.getVersion()),
        )
    )
    missed: list[Result] = [result for result in results if not result.met]
    return 1 if missed or worse else 0


def _version(number: int) -> str:
    return f"{number // 1000000}.{number // 1000 % 1000}.{number % 1000}"


if __name__ == "__main__":
    sys.exit(main())
