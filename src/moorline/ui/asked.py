"""What a reader of the page asked to see: filters and page numbers, out of the address."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar
from urllib.parse import parse_qsl, urlencode

from moorline.ui.board import Board, DiskRow, GuestRow, LinkRow

T = TypeVar("T")

ROWS = 50
"""Rows of one table at a time."""
CHIPS = 40
"""Guests or disks that are named in one row; of the others the number is told."""
_MAX_FIELDS = 20
_MAX_TEXT_CHARACTERS = 512
TABLES = ("findings", "waiting", "links", "guests", "volumes", "events")


@dataclass(frozen=True, slots=True)
class Part(Generic[T]):
    """One page of a table's rows."""

    rows: Sequence[T]
    total: int
    first: int
    """The number of the first of *rows*, from 1; 0: there is none."""
    number: int
    pages: int

    @property
    def last(self) -> int:
        """The number of the last of *rows*."""
        return self.first + len(self.rows) - 1 if self.rows else 0


@dataclass(frozen=True, slots=True)
class Asked:
    """The filters, and which page of which table."""

    text: str = ""
    link: str = ""
    guest: str = ""
    unwell: bool = False
    pages: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, query: str) -> Asked:
        """Read a query; what is not understood in it is as if it were not there."""
        try:
            fields = dict(parse_qsl(query, max_num_fields=_MAX_FIELDS))
        except ValueError:
            fields = {}
        fields = {name: value[:_MAX_TEXT_CHARACTERS] for name, value in fields.items()}
        return cls(
            text=fields.get("q", "").strip(),
            link=fields.get("link", ""),
            guest=fields.get("guest", ""),
            unwell=fields.get("unwell") == "1",
            pages={name: _number(fields.get(name, "")) for name in TABLES},
        )

    @property
    def narrows(self) -> bool:
        """Whether anything is left out."""
        return bool(self.text or self.link or self.guest or self.unwell)

    def but(self, **changes: object) -> str:
        """The query of the same with *changes*, from each table's first page. Of a table's name:
        its page.
        """
        table = {name: n for name, n in changes.items() if name in TABLES}
        rest = {name: value for name, value in changes.items() if name not in TABLES}
        new = replace(self, **rest)  # type: ignore[arg-type]
        pages = table if rest else {**self.pages, **table}
        fields = {"q": new.text, "link": new.link, "guest": new.guest}
        fields["unwell"] = "1" if new.unwell else ""
        fields |= {name: str(n) for name, n in pages.items() if n != 1}
        # A lone "?" asks for all; '' would stay where one is.
        return "?" + urlencode({name: value for name, value in fields.items() if value})

    def narrowed(self, board: Board) -> Board:
        """The rows of *board* that were asked for."""
        if not self.narrows:
            return board
        return replace(
            board,
            links=[row for row in board.links if self._has_link(row)],
            guests=[row for row in board.guests if self._has_guest(row)],
            disks=[row for row in board.disks if self._has_disk(row)],
            waiting=[row for row in board.waiting if self._has_disk(row)],
            findings=[
                each
                for each in board.findings
                if self._named(each.check, each.subject, each.what)
                and self.link in ("", each.subject)
                and (not self.guest or self.guest in each.what)
            ],
            events=[
                each
                for each in board.events
                if self._named(each.volume, each.guest, each.link, each.message, each.step)
                and self.link in ("", each.link)
                and self.guest in ("", each.guest)
                and not (self.unwell and each.outcome == "done")
            ],
        )

    def part(self, table: str, rows: Sequence[T]) -> Part[T]:
        """The page of a table that was asked for, or its last one."""
        pages = max(1, -(-len(rows) // ROWS))
        number = min(self.pages.get(table, 1), pages)
        begin = (number - 1) * ROWS
        shown = rows[begin : begin + ROWS]
        return Part(shown, len(rows), begin + 1 if shown else 0, number, pages)

    def _named(self, *texts: str) -> bool:
        text = self.text.casefold()
        return not text or any(text in each.casefold() for each in texts)

    def _is_shown(self, tone: str) -> bool:
        return not self.unwell or tone in ("bad", "wait")

    def _has_disk(self, row: DiskRow) -> bool:
        return (
            self.link in ("", row.link)
            and self.guest in ("", row.guest)
            and self._is_shown(row.tone)
            and self._named(
                row.volume, row.guest, row.link, row.storage, row.label, row.seen, row.device
            )
        )

    def _has_link(self, row: LinkRow) -> bool:
        return (
            self.link in ("", row.name)
            and self._is_shown(row.tone)
            and (not self.guest or _any(row.disks, lambda disk: disk.guest == self.guest))
            and (self._named(row.name, row.storage, row.state) or _any(row.disks, self._has_disk))
        )

    def _has_guest(self, row: GuestRow) -> bool:
        return (
            self.guest in ("", row.name)
            and self._is_shown(row.tone)
            and (not self.link or _any(row.disks, lambda disk: disk.link == self.link))
            and (self._named(row.name, row.state) or _any(row.disks, self._has_disk))
        )


def _any(disks: Iterable[DiskRow], true: Callable[[DiskRow], bool]) -> bool:
    return any(map(true, disks))


def _number(text: str) -> int:
    """A page's number; what is none is the first."""
    return int(text) if text.isascii() and text.isdigit() and 0 < len(text) < 7 and int(text) else 1
