"""The message broker of the cloud: the distribution's RabbitMQ, of this lab host alone."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from lab.cinder.real import until
from lab.leftovers import SERVICE

PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
"""The server itself: what is on the path starts it as another user."""
PORT = 5672
_CONFIGURATION = """\
listeners.tcp.1 = {address}:{port}
loopback_users = none
log.console = true
log.file = false
"""


class Broker:
    """Listens at *address* from the beginning to :meth:`stop`. *at*: an empty directory."""

    def __init__(self, at: Path, address: str) -> None:
        self.url = f"rabbit://guest:guest@{address}:{PORT}/"
        (at / "rabbitmq.conf").write_text(_CONFIGURATION.format(address=address, port=PORT))
        self._log = at / "rabbitmq.log"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [PROGRAM], env=_environment(at), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        until(self._listens, "RabbitMQ")

    def stop(self) -> None:
        """Nothing that it has is kept."""
        self._process.kill()
        self._process.wait()
        subprocess.run(["epmd", "-kill"], check=False, capture_output=True)

    def _listens(self) -> bool:
        said = self._log.read_text(errors="replace")
        assert self._process.poll() is None, said[-4000:]
        return "Server startup complete" in said


def _environment(at: Path) -> dict[str, str]:
    """One scheduler of Erlang's is enough here, and none that spins while it waits."""
    return {
        **os.environ,
        SERVICE: "rabbitmq",
        "HOME": str(at),  # its cookie is there
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": "lab@localhost",
        "RABBITMQ_CONFIG_FILE": str(at / "rabbitmq"),
        "RABBITMQ_CONF_ENV_FILE": os.devnull,
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(at / "plugins"),
        "RABBITMQ_MNESIA_BASE": str(at / "mnesia"),
        "RABBITMQ_LOG_BASE": str(at),
        "RABBITMQ_PID_FILE": str(at / "pid"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none",
    }
