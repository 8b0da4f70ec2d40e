"""The ``moorline`` command as a user starts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Moorline:
    """*state*: its state directory, made here as systemd makes an agent's (None: the default).
    *before*, *after*: more words."""

    state: Path | None = None
    environment: dict[str, str] = field(default_factory=dict)
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.state is not None:
            self.state.mkdir(mode=0o711, parents=True, exist_ok=True)

    def start(
        self, *args: str, stdin: Any = subprocess.DEVNULL, stderr: Any = subprocess.PIPE
    ) -> subprocess.Popen[str]:
        """Start it as the leader of its own process group, and return at once."""
        state = {} if self.state is None else {"MOORLINE_STATE_DIR": str(self.state)}
        program = Path(sys.executable).with_name("moorline")
        return subprocess.Popen(
            [*self.before, str(program), *args, *self.after],
            env={**os.environ, **state, **self.environment},
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            start_new_session=True,
        )

    def __call__(
        self, *args: str, code: int | None = 0, stdin: str | None = None, deadline: float = 180
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end; another exit code than *code* (None: any) is an AssertionError."""
        process = self.start(*args, stdin=subprocess.PIPE)
        try:
            out, err = process.communicate(stdin, deadline)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        if code is not None and process.returncode != code:
            words = " ".join(args)
            raise AssertionError(f"moorline {words} exited {process.returncode}\n{out}{err}")
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def json(self, *args: str, code: int | None = 0, deadline: float = 180) -> Any:
        """Run it with ``--output json`` and return what it printed."""
        return json.loads(self(*args, "--output", "json", code=code, deadline=deadline).stdout)
