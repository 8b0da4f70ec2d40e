"""``make bench``: measure, print the table, keep it in docs/performance.md.

``python -m bench --only attach --only list`` measures these alone, and keeps nothing. It ends
with an error if a ratio is worse by a quarter than on the page.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import libvirt

from bench import agent, attach, command, crowd, mounts, nova, page
from bench.measure import machine

PAGE = Path(__file__).parents[1] / "docs/performance.md"
TEMPLATE = Path(__file__).with_name("page.md")
MODULES: Sequence[Any] = (attach, command, mounts, agent, crowd, nova)


def main() -> int:
    given = _arguments()
    libvirt.registerErrorHandler(lambda *_: None, None)
    connection = libvirt.open("qemu:///system")
    table = _measured(connection, given.only)
    before = PAGE.read_text()
    worse = list(page.worse(before, table))
    whole = not given.only
    print(*page.missed(table), *page.unpaired(before, table, whole=whole), *worse, sep="\n")
    if whole and not given.no_page:
        PAGE.write_text(
            TEMPLATE.read_text().format(
                table=table,
                date=datetime.now(UTC).date(),
                machine=machine(),
                libvirt=_version(connection.getLibVersion()),
                qemu=_version(connection.getVersion()),
            )
        )
    return 1 if worse else 0


def _arguments() -> argparse.Namespace:
    names = [name for module in MODULES for name in module.NAMES]
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--only",
        action="append",
        choices=names,
        metavar="NAME",
        help="measure this alone, and leave the page; can be repeated: " + ", ".join(names),
    )
    parser.add_argument("--no-page", action="store_true", help="leave the page as it is")
    return parser.parse_args()


def _measured(connection: Any, only: Sequence[str] | None) -> str:
    """The table, which is printed line by line as it comes."""
    lines = [page.HEAD]
    print(page.HEAD)
    for module in MODULES:
        wanted = {*module.NAMES} & {*(only or module.NAMES)}
        for result in module.run(connection, wanted) if wanted else ():
            lines.append(result.row())
            print(lines[-1], flush=True)
    return "\n".join(lines)


def _version(number: int) -> str:
    return f"{number // 1000000}.{number // 1000 % 1000}.{number % 1000}"


if __name__ == "__main__":
    sys.exit(main())
