"""``moorline agent`` as an operator starts it, beside the commands."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from lab.command import Moorline
from moorline.errors import Unavailable
from moorline.local_api.client import Client


class Agent:
    """The agent of *command*'s state directory; its log is appended to *log*.

    *seen_at*: where the lab sees that directory, if not where the agent does.
    """

    def __init__(
        self, command: Moorline, log: Path, *args: str, seen_at: Path | None = None
    ) -> None:
        assert command.state is not None, "an agent of the lab has a state directory of its own"
        self._log = log
        self.client = Client((seen_at or command.state) / "agent.sock", timeout=30)
        with log.open("ab") as stderr:
            self._process = command.start("agent", *args, stderr=stderr)
        self._await()

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> None:
        """Let it finish the step in hand; one that does not end well is an AssertionError."""
        if self._process.returncode is not None:
            return  # it was killed
        self._process.terminate()
        code = self._process.wait(90)
        assert code == 0, f"the agent exited {code}\n{self._log.read_text()}"

    def kill(self) -> None:
        """SIGKILL, to it alone."""
        self._process.kill()
        self._process.wait()

    def end(self) -> int:
        """Wait until it ends by itself; its exit code."""
        try:
            return self._process.wait(60)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the agent does not end\n{self._log.read_text()}") from None

    def _await(self) -> None:
        end = time.monotonic() + 30
        while time.monotonic() < end and self._process.poll() is None:
            try:
                self.client.about()
            except Unavailable:
                time.sleep(0.02)
            else:
                return
        self.kill()
        raise AssertionError(f"the agent does not serve\n{self._log.read_text()}")
