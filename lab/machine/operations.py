"""What docs/operations.md tells an operator to type, typed in a machine word for word."""

from __future__ import annotations

import re
from pathlib import Path

from lab.images import CHECKOUT
from lab.machine.container import SOURCE, Machine

PAGE = CHECKOUT / "docs/operations.md"


def commands(section: str, page: Path = PAGE) -> list[str]:
    """The commands as root in *section* (its heading) of the page."""
    found = re.search(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", page.read_text(), re.M | re.S)
    assert found, f"{page.name} has no section {section}"
    blocks: list[str] = re.findall(r"```console\n(.*?)```", found.group(1), re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("# ")]


def follow(machine: Machine, section: str, source: str = SOURCE) -> list[str]:
    """Type the commands of *section* in the checkout at *source*; return what each printed."""
    return [
        machine.run(f"cd {source} && {command}", deadline=300).stdout
        for command in commands(section)
    ]


def install(machine: Machine) -> None:
    """Install Moorline in a machine that runs, with pip: a package takes minutes to build."""
    follow(machine, "Install with pip")
