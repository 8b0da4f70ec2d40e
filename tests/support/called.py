"""What test_calls.py has called in processes of its own."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moorline import errors

IMPORTED = time.monotonic()


def answer(question: Mapping[str, Any]) -> Mapping[str, Any]:
    """Do as the question says."""
    if begun := question.get("begun"):
        Path(begun).touch()
    if family := question.get("raise"):
        raise getattr(errors, family)("as asked", hint="ask otherwise")
    if question.get("break"):
        raise ZeroDivisionError
    if question.get("exit"):
        os._exit(3)
    if command := question.get("run"):
        subprocess.run(command, check=False)
    time.sleep(question.get("sleep", 0))
    return {"pid": os.getpid(), "imported": IMPORTED, "got": dict(question)}
