"""The agent's log on standard error: text for people or JSON for programs, with request ids."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Mapping

from moorline.local_api.request_id import current

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")
_PRIORITIES = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}
"""syslog's: https://www.freedesktop.org/software/systemd/man/latest/sd-daemon.html"""


def set_up(format: str, level: str) -> None:
    """Set the log up; may be called again."""
    root = logging.getLogger()
    handler = logging.StreamHandler()
    formatter = Json() if format == "json" else Text(dated=not to_journald())
    handler.setFormatter(Prioritised(formatter) if to_journald() else formatter)
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)  # of the libraries
    logging.getLogger("moorline").setLevel(level.upper())


def to_journald() -> bool:
    """Whether our standard error is systemd's journal, which notes the time itself.

    https://www.freedesktop.org/software/systemd/man/latest/systemd.exec.html#%24JOURNAL_STREAM
    """
    try:
        seen = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError, AttributeError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{seen.st_dev}:{seen.st_ino}"


class Prioritised(logging.Formatter):
    """Begins each line with its priority, as journald reads it: ``<4>…``."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self._formatter = formatter

    def format(self, record: logging.LogRecord) -> str:
        lines = self._formatter.format(record).splitlines()
        priority = _PRIORITIES.get(record.levelname, 6)
        return "\n".join(f"<{priority}>{line}" for line in lines)


class Text(logging.Formatter):
    """``2026-11-21T08:00:00Z INFO moorline.request [4f1c] attach 200 …``

    *dated* False: the time and the level are left to whoever reads.
    """

    def __init__(self, *, dated: bool = True) -> None:
        super().__init__()
        self._dated = dated

    def format(self, record: logging.LogRecord) -> str:
        request = f"[{current()}] " if current() else ""
        text = f"{record.name} {request}{record.getMessage()}"
        if self._dated:
            text = f"{_when(record)} {record.levelname} {text}"
        if record.exc_info:
            text += f"\n{self.formatException(record.exc_info)}"
        return text


class Json(logging.Formatter):
    """An object a line; what a record was given by name stands beside its message."""

    def format(self, record: logging.LogRecord) -> str:
        told = dict(record.args) if isinstance(record.args, Mapping) else {}
        told |= {
            "time": _when(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if current():
            told["request"] = current()
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return json.dumps(told, default=str)


def _when(record: logging.LogRecord) -> str:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.msecs):03d}Z"
