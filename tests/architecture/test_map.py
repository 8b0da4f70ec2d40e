"""docs/architecture.md is whole: every room, every group's files, and how imports may go."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from test_imports import MAY_IMPORT

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src/moorline"
PAGE = (ROOT / "docs/architecture.md").read_text()
MOST_WORDS = 2000
"""What is read in ten minutes."""
GROUPED = ("core", "fleet", "hypervisors/libvirt", "operations", "care", "loop", "ports")
NAMES_ITSELF = {"fleet": {"fleet"}}
DECISIONS = ROOT / "docs/decisions"


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def files(folder: str) -> set[str]:
    return {file.stem for file in (PACKAGE / folder).glob("*.py")} - {"__init__", "__main__"}


def folders() -> set[str]:
    return {str(file.parent.relative_to(PACKAGE)) for file in PACKAGE.rglob("*.py")} - {"."}


def rows(text: str) -> list[list[str]]:
    found = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row] for row in found[1:]]


def named(text: str) -> list[str]:
    prose = re.sub(r"```.*?```", "", text, flags=re.S)
    return re.findall(r"`([^`\n]+)`", prose)


def test_every_room_has_one_row() -> None:
    rooms = Counter(name for row in rows(section("The rooms")) for name in named(row[0]))
    of_hypervisors = {room for room in folders() if room.startswith("hypervisors/")}
    expected = {f"{room}/" for room in folders() - of_hypervisors}
    expected |= {f"{name}.py" for name in files("")}
    assert rooms == Counter(expected)
    names = Counter(named(section("The hypervisors")))
    assert {f"{room}/" for room in of_hypervisors} <= set(names)


@pytest.mark.parametrize("room", GROUPED)
def test_every_file_of_a_room_is_in_one_group(room: str) -> None:
    if room.startswith("hypervisors"):
        text = section("The hypervisors").partition("**vSphere:**")[0]
    elif f"\n**`{room}/`" in PAGE:
        text = PAGE.partition(f"\n**`{room}/`")[2]
        text = re.split(r"\n\*\*|\n## ", text)[0]
    else:
        (text,) = [row[1] for row in rows(section("The rooms")) if row[0] == f"`{room}/`"]
    count = Counter(name for name in named(text) if name in files(room))
    driver_and_port = {"driver", "hypervisor"} if room.startswith("hypervisors") else set()
    assert set(count) | driver_and_port == files(room)
    # What all hypervisors have is told once more, for all.
    assert [
        name for name, n in count.items() if n > 1 and name not in ("inventory", "lifecycle")
    ] == []


def test_what_the_page_names_is_there() -> None:
    paths = [name for name in named(PAGE) if "/" in name and " " not in name]
    paths = [name for name in paths if name.endswith(("/", ".py")) and "*" not in name]
    assert len(paths) > 50
    for name in paths:
        assert (PACKAGE / name).exists() or (ROOT / name).exists(), name


def levels() -> list[list[str]]:
    """The rooms by the lines of the drawing, from the top; what follows wide space is a comment."""
    drawing = section("The rooms").partition("```\n")[2].partition("```")[0]
    lines = [re.split(r"\s{3,}", line)[0] for line in drawing.splitlines() if line.strip()]
    return [re.findall(r"\w+", line) for line in lines]


def test_the_drawing_has_each_room_once() -> None:
    drawn = Counter(room for line in levels() for room in line)
    assert drawn == Counter(set(MAY_IMPORT) - {"__init__"})


def test_the_drawing_is_the_rule() -> None:
    """What a room may import is below it, or beside it in composition and among the edges."""
    at = {room: number for number, line in enumerate(levels()) for room in line}
    edges, composition = levels()[0], levels()[1]
    seams = {room for line in levels()[5:7] for room in line}
    for room, allowed in MAY_IMPORT.items():
        for other in allowed - {room}:
            if room == "__init__":
                continue
            if room in ("backends", "hypervisors", "stores", "host", "cinder", "testing"):
                assert other in seams, f"{room}: {other}"
            elif at[room] == at[other]:
                beside = room in composition or at[room] == at["model"]
                assert beside or (room in edges and edges.index(room) < edges.index(other))
            else:
                assert at[room] < at[other], f"{room}: {other}"


def test_it_is_read_in_ten_minutes() -> None:
    assert len(PAGE.split()) <= MOST_WORDS


def test_each_decision_is_in_the_index_by_its_title() -> None:
    lines = re.findall(r"^(\d+)\. \[(.+)\]\((.+)\)$", (DECISIONS / "README.md").read_text(), re.M)
    pages = sorted(DECISIONS.glob("[0-9]*.md"))
    expected = []
    for page in pages:
        title = re.fullmatch(r"# (\d+)\. (.+)", page.read_text().splitlines()[0])
        assert title, page.name
        assert page.name.startswith(f"{int(title[1]):04}-"), page.name
        expected.append((title[1], title[2], page.name))
    assert lines == expected
    assert len({number for number, _, _ in expected}) == len(pages)
