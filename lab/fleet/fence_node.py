#!/usr/bin/python3
"""A fence agent for the lab's hosts, in the calling convention of the fence-agents package.

Options come on standard input, a line each: ``action=off`` and ``plug=DIRECTORY``, the host's.
Exit status 0: it is off, and was seen to be. Anything else: it may be on.
"""

import os
import signal
import sys
import time
from pathlib import Path


def main() -> int:
    options = dict(line.strip().partition("=")[::2] for line in sys.stdin if "=" in line)
    if options.get("action") != "off":
        print("this agent can switch off, and nothing else", file=sys.stderr)
        return 1
    pid = int((Path(options["plug"]) / "run/power").read_text())
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + 30
    while any(Path(f"/proc/{child}").exists() for child in children):
        if time.monotonic() > end:
            print(f"{options['plug']} does not end", file=sys.stderr)
            return 1
        time.sleep(0.05)
    return 0


if __name__ == "__main__":
    sys.exit(main())
