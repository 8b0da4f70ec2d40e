"""What ``make demo`` tells is true, of each system: each in a private host of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lab.demo import APART, STORIES
from lab.images import CHECKOUT


@pytest.fixture(scope="session")
def private_hosts() -> None:
    if os.geteuid() == 0:
        return
    if subprocess.run(["sudo", "-n", "true"], check=False, capture_output=True).returncode:
        pytest.skip("needs root, or sudo that asks for no password")


@pytest.mark.parametrize("system", sorted(STORIES.keys() - APART))
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("private_hosts")
def test_every_claim_of_the_story_holds(system: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lab", "demo", system],
        cwd=CHECKOUT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=850,
        check=False,
    )
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["demo: ok"]), done.stdout
