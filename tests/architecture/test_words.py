"""One word for one thing: words that were given up stay away, and a number of seconds says so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from moorline.core.plan import Step

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "nova/src").rglob("*.py")])
AROUND = sorted(
    file
    for folder in ("tests", "lab", "bench", "packaging")
    for file in (ROOT / folder).rglob("*.py")
    if file != Path(__file__)
)
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")])

GIVEN_UP = {
    "wish(?:es|ed)?": "attachment (the record), wanted (its state)",
    r"journal(?=\.(?!md)\w)|\w*_journal|(?<!No )Journal(?=\w)": "event log",
    "[Ll]ooker": "drift",
    "[Uu]pkeep": "controller",
    "backlog": "work queue",
    "settler": "driver",
    "lanes?": "lock",
    "surroundings": "environment",
    "openers": "users of a mount",
    r"\w*Machines(?=[:(\[.]\w?)": "guest lifecycle",
    "asker|asked_by": "privilege (of the caller)",
    r"refuse_remains|remains(?=\()": "leftovers",
    "misfit": "exclusion (of options)",
    "AtHand|at_hand": "options of the hypervisor",
    r"(?:cli[./]|import )at_once|LongWay|long way": "fast path, click",
    r"Writers(?=\()|core\.writers|core\.clashes": "clashes of files, of records",
    r"Sight|sight(?=\()": "machine state",
    "riddles?": "what is unresolved",
    "ailment": "defect (of a mount)",
    "usurper": "other volume",
    "[Ww]hereabouts": "agent location",
    r"\w*[Ff]oresight": "dry run",
    r"error_codes|local_api\.shapes": "HTTP errors, JSON types; exit codes",
    r"FileTurns|file_turns": "file locking",
    r"core\.(?:patience|pace|naming|alone)": "retry loop, backoff, name lookup, no fleet",
}
"""Private words that this project had, and the word that stands for the same thing now."""

FOUND = re.compile(rf"(?<!\w)_*(?:{'|'.join(GIVEN_UP)})(?!\w)")


def given_up(text: str) -> list[str]:
    """Say where *text* has a word that was given up, and what stands in its place."""
    return [
        f"line {number}: {found[0]!r}: {_instead(line, found.start())}"
        for number, line in enumerate(text.splitlines(), 1)
        for found in FOUND.finditer(line)
    ]


def _instead(line: str, at: int) -> str:
    words = ((re.compile(rf"_*(?:{word})(?!\w)"), other) for word, other in GIVEN_UP.items())
    return next(other for word, other in words if word.match(line, at))


EVERYWHERE = [*SOURCES, *AROUND, *PAGES]


@pytest.mark.parametrize("file", EVERYWHERE, ids=lambda f: str(f.relative_to(ROOT)))
def test_a_word_that_was_given_up_stays_away(file: Path) -> None:
    assert given_up(file.read_text()) == []


def test_each_of_them_is_found() -> None:
    for word in (
        *("wish", "wished", "_Looker", "upkeep", "_Upkeep", "lane", "openers", "self.journal.took"),
        *("asker", "refuse_remains", "misfit", "AtHand", "moorline.cli.at_once", "_LongWay"),
        *("Writers(host)", "Sight", "_riddle", "ailment", "_usurper", "whereabouts"),
        *("GuestForesight", "local_api.error_codes", "file_turns", "moorline.core.pace"),
    ):
        assert given_up(f"a {word} here"), word
    assert not given_up("no undo journal, `journalctl`, systemd's journal")


NUMBER = re.compile(r"^(_?[A-Z][A-Z_0-9]*)(?:: float)? = \d+\.\d+$", re.M)
RATIOS = ("_RATIO", "_FACTOR", "_SHARE", "_VERSION")


@pytest.mark.parametrize("file", SOURCES, ids=lambda f: str(f.relative_to(ROOT)))
def test_a_time_says_its_unit(file: Path) -> None:
    """A constant with a decimal point is a time: its name ends with the unit."""
    nameless = [
        name
        for name in NUMBER.findall(file.read_text())
        if not name.endswith(("_SECONDS", "_MILLISECONDS", *RATIOS))
    ]
    assert nameless == []


TABLE = (ROOT / "docs/words.md").read_text()
TERMS = [
    re.sub(r"\s*\(.*\)", "", term).strip()
    for row in re.findall(r"^\| ([^|]+) \|", TABLE, re.M)[1:]
    for term in row.split(",")
]


@pytest.mark.parametrize("term", TERMS)
def test_each_word_of_the_table_is_used(term: str) -> None:
    pattern = re.compile(rf"\b{term}".replace(" ", r"[ _-]?"), re.I)
    assert any(pattern.search(file.read_text()) for file in SOURCES), term


def test_the_table_has_each_step() -> None:
    row = next(line for line in TABLE.splitlines() if line.startswith("| step |"))
    assert {step.value for step in Step} == set(re.split(r",? or |, ", row.split("|")[2].strip()))
