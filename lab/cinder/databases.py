"""What makes SQLite fit for several services of OpenStack at once; imported into those."""

from __future__ import annotations

from typing import Any


def begin_to_write_at_once() -> None:
    """Have each transaction wait for SQLite's lock when it begins.

    One that has read and comes to write fails at once ("database is locked") where another one
    wrote in between: no time-out helps then.
    """
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def run(_: Any, __: Any, statement: str, words: Any, *___: Any) -> tuple[str, Any]:
        return ("BEGIN IMMEDIATE" if statement == "BEGIN" else statement), words  # oslo.db's

    event.listen(Engine, "before_cursor_execute", run, retval=True)
