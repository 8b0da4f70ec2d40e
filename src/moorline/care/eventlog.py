"""events: what was done on this host, for people to read. Bounded; no decision depends on it."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from moorline.core.plan import Step
from moorline.core.took import Took
from moorline.errors import Denied, MoorlineError
from moorline.model import Attachment, Key, VolumeId
from moorline.ports.results import EventLogEntry, Trouble

FILE_LIMIT_BYTES = 2 << 20
"""Bytes of a file of the event log; it has two files."""
_MAX_MESSAGE_CHARACTERS = 1000
_TAIL_BYTES = 64 << 10
"""Bytes at the end of a file that always hold a whole line."""
_MAX_FAILING_STEPS = 1000
_DONE, _SEEN = "done", "seen"
_LOG = logging.getLogger("moorline.events")
_LOG.addHandler(logging.NullHandler())  # without a log, a command prints its result itself


_ASKED_AGAIN = "the guest has not let go yet, and was asked again"
_FIELDS = tuple(field.name for field in fields(EventLogEntry))


class EventLog:
    """Two files of JSON lines in *directory*; the older one goes when the newer is full.

    Entries go to the process's log, too. Only the host's owner writes, so there is
    one writer. A line that a crash cut short is skipped. An entry that cannot be written is
    lost, and no error. Safe to use from several threads.
    """

    def __init__(
        self,
        directory: Path,
        *,
        limit: int = FILE_LIMIT_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._file = directory / "events.jsonl"
        self._older = directory / "events.1.jsonl"
        self._limit = limit
        self._clock = clock
        self._guard = threading.Lock()
        self._last = -1
        """The last id that was given; -1: not looked up yet."""
        self._repeats: dict[tuple[str, ...], tuple[str, int]] = {}
        self._detached: set[Key] = set()
        """The attachments whose last step was to ask the guest for the disk."""

    def took(self, took: Took) -> None:
        """Note a step. Writes to a local file; never raises."""
        key = took.row.key
        self._note(
            took.step.value,
            took.error.kind if took.error else _DONE,
            str(took.error) if took.error else took.found or self._again(took),
            volume=key.volume,
            guest=took.row.guest_name or key.guest,
            link=took.row.link,
            seconds=round(took.seconds, 3),
        )

    def did(self, step: str, guest: str, seconds: float, error: MoorlineError | None) -> None:
        """Note a step on a guest itself (define, start, stop, undefine); as :meth:`took`."""
        self._note(
            step,
            error.kind if error else _DONE,
            str(error) if error else "",
            volume="",
            guest=guest,
            link="",
            seconds=round(seconds, 3),
        )

    def saw(self, message: str, *, volume: str = "", guest: str = "", link: str = "") -> None:
        """Note something that was seen; as :meth:`took`."""
        self._note("", _SEEN, message, volume=volume, guest=guest, link=link, seconds=0.0)

    def noted(self, row: Attachment, trouble: Trouble) -> None:
        """Note why an attachment waits, unless the last step's entry says so; as :meth:`took`."""
        guest = row.guest_name or row.key.guest
        told = (row.key.volume, guest, row.link)
        if any(key[1:] == told and key[0] for key in self._repeating(trouble.message)):
            return
        self._note(
            "",
            trouble.error,
            trouble.message,
            volume=row.key.volume,
            guest=guest,
            link=row.link,
            seconds=0.0,
        )

    def read(
        self,
        *,
        after: int = 0,
        since: float = 0.0,
        volume: str = "",
        guests: Collection[str] = (),
        most: int = 1000,
    ) -> list[EventLogEntry]:
        """The latest *most* entries, oldest first.

        Only those with an id above *after*, not before *since* (seconds since
        the epoch), of *volume*, which is an id, of one of *guests* if there are any. Raises Denied.
        """
        found: list[EventLogEntry] = []
        about = f'"volume": {json.dumps(volume)}'.encode() if volume else b""
        for entry in self._backwards(about):
            if entry.id <= after or entry.at < since or len(found) == most:
                break
            if not guests or entry.guest in guests:
                found.append(entry)
        return found[::-1]

    def news(self, after: int, most: int) -> list[EventLogEntry]:
        """The latest *most* entries after the one with the id *after*; all, if it is unknown.

        For the host's owner: it costs nothing if there are none. Raises Denied.
        """
        with self._guard:
            if self._last < 0:
                with suppress(OSError):
                    self._last = self._last_id()
            last = self._last
        if after == last:
            return []
        return self.read(after=after if after < last else 0, most=most)

    def volumes(self) -> set[VolumeId]:
        """The volumes that have entries. Raises Denied."""
        return {VolumeId(entry.volume) for entry in self._backwards(b"") if entry.volume}

    def guests(self) -> set[str]:
        """What the guests that have entries are called there. Raises Denied."""
        return {entry.guest for entry in self._backwards(b"") if entry.guest}

    def _again(self, took: Took) -> str:
        """Why a detach that worked is taken once more; '': it is not."""
        with self._guard:
            before = took.row.key in self._detached
            self._detached.discard(took.row.key)
            if took.step is Step.DETACH:
                self._detached.add(took.row.key)
        return _ASKED_AGAIN if before and took.step is Step.DETACH else ""

    def _note(self, step: str, outcome: str, message: str, **what: Any) -> None:
        with self._guard, suppress(OSError, MoorlineError):
            key = (step, what["volume"], what["guest"], what["link"])
            times = 1 if outcome == _SEEN else self._times(key, message)
            if times & (times - 1):
                return  # the 1st, 2nd, 4th, 8th … is noted: all would displace the other entries
            if self._last < 0:
                self._last = self._last_id()
            entry = EventLogEntry(
                self._last + 1,
                self._clock(),
                step,
                outcome,
                message=message[:_MAX_MESSAGE_CHARACTERS],
                times=times,
                **what,
            )
            _log(entry)
            self._append(json.dumps(_facts(entry)).encode() + b"\n")
            self._last += 1

    def _times(self, key: tuple[str, ...], message: str) -> int:
        if not message:
            # A step that works ends the count of failures of its attachment.
            for other in [other for other in self._repeats if other[1:] == key[1:]]:
                del self._repeats[other]
            return 1
        if len(self._repeats) > _MAX_FAILING_STEPS:
            self._repeats.clear()
        before, times = self._repeats.get(key, ("", 0))
        times = times + 1 if before == message else 1
        self._repeats[key] = message, times
        return times

    def _last_id(self) -> int:
        for file in (self._file, self._older):
            with suppress(FileNotFoundError), file.open("rb") as stream:
                stream.seek(max(0, os.fstat(stream.fileno()).st_size - _TAIL_BYTES))
                if entry := next(_entries(stream.read()), None):
                    return entry.id
        return 0

    def _repeating(self, message: str) -> list[tuple[str, ...]]:
        with self._guard:
            return [key for key, (what, _) in self._repeats.items() if what == message]

    def _append(self, line: bytes) -> None:
        with suppress(FileNotFoundError):
            if self._file.stat().st_size > self._limit:
                self._file.replace(self._older)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        file = os.open(self._file, flags, 0o600)
        try:
            size = os.fstat(file).st_size
            if size and os.pread(file, 1, size - 1) != b"\n":
                line = b"\n" + line  # a crash, or a full disk, cut the last one short
            os.write(file, line)
        finally:
            os.close(file)

    def _backwards(self, about: bytes) -> Iterator[EventLogEntry]:
        """The entries whose lines contain *about*, the latest first. Raises Denied."""
        for file in (self._file, self._older):
            try:
                content = file.read_bytes()
            except FileNotFoundError:
                continue
            except PermissionError as e:
                raise Denied(f"{file} cannot be read: {e.strerror}", hint="run as root") from e
            yield from _entries(content, about)


def _facts(entry: EventLogEntry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in _FIELDS}


def _log(entry: EventLogEntry) -> None:
    level = logging.INFO if entry.outcome in (_DONE, _SEEN) else logging.WARNING
    if not _LOG.isEnabledFor(level):
        return
    facts = _facts(entry)
    del facts["id"], facts["at"], facts["message"]
    on = f"volume {entry.volume} on {entry.guest}" if entry.volume else entry.guest
    text = " ".join(filter(None, (entry.step, entry.outcome, on, entry.message)))
    _LOG.log(level, text.replace("%", "%%"), facts)


def _entries(content: bytes, about: bytes = b"") -> Iterator[EventLogEntry]:
    lines = (line for line in reversed(content.splitlines()) if about in line)
    return filter(None, map(_entry, lines))


def _entry(line: bytes) -> EventLogEntry | None:
    try:
        values = json.loads(line)
        return EventLogEntry(**{name: values[name] for name in _FIELDS if name in values})
    except (ValueError, TypeError, AttributeError):
        return None
