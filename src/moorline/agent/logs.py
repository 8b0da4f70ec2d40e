"""The agent's log on standard error: text for people or JSON for programs, with request ids."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping

from moorline.local_api.request_id import current

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")


def set_up(format: str, level: str) -> None:
    """Log so from now on; may be called again."""
    root = logging.getLogger()
    handler = logging.StreamHandler()
    handler.setFormatter(Json() if format == "json" else Text())
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)  # of the libraries
    logging.getLogger("moorline").setLevel(level.upper())


class Text(logging.Formatter):
    """``2026-11-21T08:00:00Z INFO moorline.request [4f1c] attach 200 …``"""

    def format(self, record: logging.LogRecord) -> str:
        request = f"[{current()}] " if current() else ""
        text = f"{_when(record)} {record.levelname} {record.name} {request}{record.getMessage()}"
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
