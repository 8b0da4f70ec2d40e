"""The agent's log where systemd reads it."""

from __future__ import annotations

import subprocess
import sys


def test_the_journal_of_systemd_is_told_priorities_and_no_time() -> None:
    code = (
        "import logging, os; from moorline.agent.logs import set_up\n"
        "seen = os.fstat(2); os.environ['JOURNAL_STREAM'] = f'{seen.st_dev}:{seen.st_ino}'\n"
        "set_up('text', 'debug'); log = logging.getLogger('moorline.x')\n"
        "log.info('calm'); log.warning('a\\nb'); log.error('bad')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == [
        "<6>moorline.x calm",
        "<4>moorline.x a",
        "<4>b",
        "<3>moorline.x bad",
    ]
