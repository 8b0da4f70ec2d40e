"""Placement and Nova's API, conductor and scheduler."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from lab.cinder.real import RealCloud, answers, serve
from lab.cloud import configuration
from lab.fleet.node import OUTSIDE

_SERVER = Path(__file__).with_name("controller_server.py")
_PORT = 8700
_URL = f"http://{OUTSIDE}:{_PORT}"
PORTS = (8701, 8702)
"""Of keystone and Cinder. What all their databases say of them is true in each lab host."""


class Control:
    """*at*: an empty directory, or one with databases of before. *broker*: its URL."""

    def __init__(self, at: Path, real: RealCloud, broker: str) -> None:
        self.at = at
        self._real = real
        self.log = at / "controller.log"
        text = configuration.nova(real.identity, broker, "control", OUTSIDE, real.venv, state=at)
        (at / "nova.conf").write_text(text + configuration.databases(at))
        (at / "placement.conf").write_text(configuration.placement(real.identity, at))
        shutil.copy(real.venv / "etc/nova/api-paste.ini", at)

    def fill(self) -> None:
        """Name the services in the catalogue, and make Nova's databases."""
        self._real.add_user("nova", "admin", "admin", "service")
        self._real.offer("nova", "compute", f"{_URL}/compute/v2.1")
        self._real.offer("placement", "placement", f"{_URL}/placement")
        self._real.offer("neutron", "network", f"{_URL}/network")
        for words in (
            "api_db sync",
            f"cell_v2 map_cell0 --database_connection sqlite:///{self.at}/cell0.db?timeout=60",
            "db sync",
            "cell_v2 create_cell --name cell1",
        ):
            self._manage(*words.split())

    def start(self) -> None:
        words = (OUTSIDE, str(_PORT), str(self.at))
        self._process = serve(self._real.venv, _SERVER, words, self.log)
        answers(self._process, _URL, self.log)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def _manage(self, *words: str) -> None:
        program = f"{self._real.venv}/bin/nova-manage"
        command = [program, "--config-file", f"{self.at}/nova.conf", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
