"""The store of one host: SQLite behind the five-method contract."""

from __future__ import annotations

import builtins
import errno
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from moorline.errors import Compacted, Conflict, Denied, Refused, Unavailable
from moorline.ports import At, Delete, Entry, Event, Put
from moorline.ports.limits import prefix_ends, within_limits

_FULL_BELOW_BYTES = 64 << 10
_MAX_LISTED = 4
"""Listings that are remembered: an attach lists all attachments, a thousand attaches a million."""
_TAKES_NOTHING = frozenset(
    {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}
)

# One tuple of statements a schema version; append, never edit. `gone` rows are
# tombstones: a watcher that was away learns of a deletion from them.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "create table entry (key text primary key, value blob, revision integer not null,"
        " gone integer not null default 0)",
        "create index entry_revision on entry (revision)",
        "create table counter (name text primary key, value integer not null)",
        "insert into counter values ('revision', 0), ('compacted', 0)",
    ),
)


class SqliteStore:
    """See :class:`moorline.ports.Store`. Safe from many threads and processes.

    *path*: the database file; it is created for its owner alone.
    *make*: if there is none; else it acts as an empty, read-only store, and no file is made.
    *busy*: seconds to wait for another process's write lock.
    *poll*: seconds between looks for another process's commits while watching.

    On a disk that is full or read-only, a database that was closed properly can still be
    read; a commit raises Unavailable until there is room again.

    Opening raises Unavailable (cannot be read), Denied or Refused (written by a newer
    Moorline). SQLite never leaves a commit in doubt, so Uncertain is not raised here.
    """

    def __init__(
        self, path: Path, *, make: bool = True, busy: float = 10.0, poll: float = 0.25
    ) -> None:
        self._path = path
        self._busy = busy
        self._poll = poll
        # One connection for all threads: SQLite has one writer anyway.
        self._lock = threading.RLock()
        self._committed = threading.Condition()
        self._closed = False
        self._listed: dict[str, tuple[int, tuple[Entry, ...]]] = {}
        """What was listed at a revision, by prefix: each commit, whoever made it, has a new one."""
        self._frozen = False
        """It was opened read-only, as its disk cannot be written to."""
        try:
            self._db = self._open() if make or self._exists() else self._open_none()
        except Unavailable as e:
            if not (_takes_nothing(e.__cause__) and self._closed_well()):
                raise
            self._db = self._open_frozen()
            self._frozen = True

    def get(self, key: str) -> Entry | None:
        with self._lock, self._unavailable("read"):
            return self._get(key)

    def list(self, prefix: str) -> tuple[list[Entry], int]:
        below = prefix_ends(prefix)
        with self._lock, self._unavailable("read"):
            # One statement: each lets go of the interpreter, and may wait long to have it back.
            then, known = self._listed.get(prefix, (-1, ()))
            if then == self._counter("revision"):
                return [*known], then
        with self._transaction("deferred"):
            now = self._counter("revision")
            rows = self._db.execute(
                "select key, value, revision from entry"
                " where key >= ? and key < ? and not gone order by key",
                below,
            ).fetchall()
            entries = [Entry(*row) for row in rows]
            if len(self._listed) >= _MAX_LISTED:
                self._listed.clear()
            self._listed[prefix] = now, tuple(entries)
            return entries, now

    def commit(self, when: Sequence[At], then: Sequence[Put | Delete]) -> int:
        within_limits(when, then)
        self._thaw()
        # Never deferred: upgrading from read to write fails at once when the database is busy.
        with self._transaction("immediate"):
            current = {at.key: self._get(at.key) for at in when}
            lost = {at.key for at in when if _revision(current[at.key]) != at.revision}
            if lost:
                raise Conflict(
                    f"{', '.join(sorted(lost))} changed meanwhile",
                    current={key: current[key] for key in lost},
                )
            revision = self._next_revision()
            for operation in then:
                self._apply(operation, revision)
        with self._committed:
            self._committed.notify_all()
        return revision

    def watch(self, prefix: str, after: int, stop: threading.Event) -> Iterator[Event]:
        below = prefix_ends(prefix)
        while not stop.is_set() and not self._closed:
            events, now = self._since(below, after)
            yield from events
            if now > after:
                after = now
                yield Event(now, "", None)
            else:
                with self._committed:
                    self._committed.wait(self._poll)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._db.close()
        with self._committed:
            self._committed.notify_all()

    def _open(self) -> sqlite3.Connection:
        with self._unavailable("opened"):
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            db = self._connect(str(self._path))
        try:
            with self._unavailable("opened"):
                # FULL: an acknowledged attachment must survive a power cut.
                db.execute("pragma journal_mode = wal")
                db.execute("pragma synchronous = full")
            with self._transaction("immediate", db):
                self._migrate(db)
                _drop_tombstones(db)
        except BaseException:
            db.close()
            raise
        return db

    def _exists(self) -> bool:
        with self._unavailable("opened"):
            try:
                self._path.stat()
            except (FileNotFoundError, NotADirectoryError):
                return False
            return True

    def _open_none(self) -> sqlite3.Connection:
        """An empty, read-only database. Raises Denied if we could not make the file."""
        above = self._path.parent
        with self._unavailable("opened"):
            if above.exists() and not _may_write(above):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            db = self._connect(":memory:")
        with self._transaction("immediate", db):
            self._migrate(db)
        db.execute("pragma query_only = true")
        return db

    def _open_frozen(self) -> sqlite3.Connection:
        """Open the file as immutable, so that SQLite needs no files beside it."""
        with self._unavailable("opened"):
            db = self._connect(f"{self._path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
        try:
            with self._unavailable("read"):
                done = _version(db)
            if done != len(MIGRATIONS):
                raise Unavailable(f"the state {self._path} cannot be brought up to date")
        except BaseException:
            db.close()
            raise
        return db

    def _closed_well(self) -> bool:
        """Whether all that was ever committed is in the database file itself."""
        with suppress(OSError):
            wal = self._path.with_name(f"{self._path.name}-wal")
            return self._path.stat().st_size > 0 and not (wal.exists() and wal.stat().st_size)
        return False

    def _connect(self, name: str, *, uri: bool = False) -> sqlite3.Connection:
        return sqlite3.connect(
            name, isolation_level=None, timeout=self._busy, check_same_thread=False, uri=uri
        )

    def _thaw(self) -> None:
        """Reopen it for writing if the disk allows that by now. Raises Unavailable."""
        with self._lock:
            if self._frozen:
                fresh = self._open()
                self._db.close()
                self._db, self._frozen = fresh, False

    def _since(self, below: tuple[str, str], after: int) -> tuple[builtins.list[Event], int]:
        with self._transaction("deferred"):
            now, compacted = self._counter("revision"), self._counter("compacted")
            if after < compacted or after > now:
                raise Compacted(f"revision {after} is not between {compacted} and {now}")
            rows = self._db.execute(
                "select key, value, revision, gone from entry"
                " where revision > ? and key >= ? and key < ? order by revision, key",
                (after, *below),
            ).fetchall()
        return [
            Event(revision, key, None if gone else Entry(key, value, revision))
            for key, value, revision, gone in rows
        ], now

    def _get(self, key: str) -> Entry | None:
        row = self._db.execute(
            "select key, value, revision from entry where key = ? and not gone", (key,)
        ).fetchone()
        return Entry(*row) if row else None

    def _counter(self, name: str) -> int:
        row = self._db.execute("select value from counter where name = ?", (name,)).fetchone()
        return int(row[0])

    def _next_revision(self) -> int:
        self._db.execute("update counter set value = value + 1 where name = 'revision'")
        return self._counter("revision")

    def _apply(self, operation: Put | Delete, revision: int) -> None:
        if isinstance(operation, Put):
            self._db.execute(
                "insert into entry (key, value, revision, gone) values (?, ?, ?, 0)"
                " on conflict (key) do update"
                " set value = excluded.value, revision = excluded.revision, gone = 0",
                (operation.key, operation.value, revision),
            )
        else:
            self._db.execute(
                "update entry set value = null, revision = ?, gone = 1 where key = ? and not gone",
                (revision, operation.key),
            )

    def _migrate(self, db: sqlite3.Connection) -> None:
        db.execute("create table if not exists migration (version integer primary key, at real)")
        done = _version(db)
        if done > len(MIGRATIONS):
            raise Refused(
                f"{self._path} was written by a newer Moorline (schema {done},"
                f" this one knows {len(MIGRATIONS)})",
                hint="upgrade Moorline, or restore a backup of the state directory",
            )
        for version, statements in enumerate(MIGRATIONS[done:], done + 1):
            for statement in statements:
                db.execute(statement)
            db.execute("insert into migration values (?, ?)", (version, time.time()))

    @contextmanager
    def _transaction(self, kind: str, db: sqlite3.Connection | None = None) -> Iterator[None]:
        with self._lock, self._unavailable("read or written"):
            db = db or self._db
            db.execute(f"begin {kind}")
            try:
                yield
                db.execute("commit")
            except BaseException:
                if db.in_transaction:
                    db.execute("rollback")
                raise

    @contextmanager
    def _unavailable(self, what: str) -> Iterator[None]:
        try:
            yield
        except PermissionError as e:
            raise Denied(f"the state {self._path} cannot be {what}: {e.strerror}") from e
        except OSError as e:
            raise Unavailable(f"the state {self._path} cannot be {what}: {e.strerror}") from e
        except sqlite3.Error as e:
            code = getattr(e, "sqlite_errorcode", 0) & 0xFF
            damaged = code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
            raise Unavailable(
                f"the state {self._path} cannot be {what}: {self._why(e)}",
                hint="restore a backup of the state directory" if damaged else "",
            ) from e

    def _why(self, error: sqlite3.Error) -> str:
        """*error* in words. SQLite reports a full disk as an I/O error of its smaller files."""
        with suppress(OSError):
            disk = os.statvfs(self._path.parent)
            if disk.f_flag & os.ST_RDONLY:
                return f"{error}: its disk is read-only"
            if disk.f_bavail * disk.f_frsize < _FULL_BELOW_BYTES:
                return f"{error}: its disk is full"
        return str(error)


def _may_write(directory: Path) -> bool:
    """Whether we have permission to write to it, apart from the disk being read-only."""
    return bool(
        os.access(directory, os.W_OK, effective_ids=True)
        or os.statvfs(directory).f_flag & os.ST_RDONLY
    )


def _takes_nothing(error: BaseException | None) -> bool:
    """Whether the error means a full or read-only disk, rather than another's lock."""
    if isinstance(error, OSError):
        return error.errno in (errno.EROFS, errno.ENOSPC, errno.EDQUOT)
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _TAKES_NOTHING


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("select coalesce(max(version), 0) from migration").fetchone()[0])


def _drop_tombstones(db: sqlite3.Connection) -> None:
    """Delete all tombstones: an owner lists when it starts, so nobody needs older deletions."""
    if db.execute("delete from entry where gone").rowcount:
        db.execute(
            "update counter set value ="
            " (select value from counter where name = 'revision')"
            " where name = 'compacted'"
        )


def _revision(entry: Entry | None) -> int:
    return entry.revision if entry else 0
