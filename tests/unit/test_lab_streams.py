"""Standard input and output of ``lab run`` are the command's, whatever prepares its host."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import subprocess
from lab.host import streams_kept

with streams_kept():
    subprocess.run(["cat"], check=True)
    subprocess.run(["echo", "Get:1 a.deb"], check=True)
    print("prepared")
subprocess.run(["cat"], check=True)
"""


def test_what_prepares_a_host_takes_nothing_from_its_command() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], input="told", capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("told", "Get:1 a.deb\nprepared\n")
