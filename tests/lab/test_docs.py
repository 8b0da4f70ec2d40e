"""README and tutorial, run as written on the host that they describe."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from libvirt_rig import CONFIG, pull
from scene import Scene

from lab.host import umount
from moorline.model import VolumeId

ROOT = Path(__file__).parents[2]
VARIES = [
    (re.compile(r"^… .*$", re.MULTILINE), ""),  # progress, of what takes longer than a second
    (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(?=\))"), "GUEST-UUID"),
    (re.compile(r"\b\d+s\b"), "AGE"),
    (re.compile(r" +"), " "),
]


def session(page: str) -> list[tuple[str, str]]:
    """The commands of a page's sessions as root, each with what it is said to print."""
    found: list[tuple[str, str]] = []
    for block in re.findall(r"```console\n(.*?)```", (ROOT / page).read_text(), re.DOTALL):
        for line in block.splitlines():
            if line.startswith("# "):
                found.append((line[2:], ""))
            elif found and not line.startswith("$ "):
                found[-1] = found[-1][0], found[-1][1] + line + "\n"
    return found


def alike(text: str) -> str:
    for pattern, word in VARIES:
        text = pattern.sub(word, text)
    return "\n".join(line.rstrip() for line in text.splitlines() if line.strip())


def run(commands: list[str]) -> list[str]:
    """Run them in one shell of a furnished lab host; return what each printed."""
    mark = "=== next ==="
    script = "".join(f"{command}\ncode=$?; echo '{mark}'; (exit $code)\n" for command in commands)
    ran = subprocess.run(
        [sys.executable, "-m", "lab", "run", "--", sys.executable, "-c", INNER],
        input=script,
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return ran.stdout.split(f"{mark}\n")


# A host of its own, within the lab's: the pages begin with one that is untouched.
INNER = """
import subprocess, sys
from lab import shell
sys.exit(shell.run(["bash", "-c", "exec bash 2>&1"]))
"""


@pytest.mark.usefixtures("lab")
@pytest.mark.parametrize(
    ("page", "commands"), [("README.md", slice(0, 4)), ("docs/tutorial.md", slice(0, -1))]
)
def test_page(page: str, commands: slice) -> None:
    told = session(page)[commands]
    assert len(told) >= 4
    printed = run([command for command, _ in told])
    for (command, expected), seen in zip(told, printed, strict=False):
        assert alike(seen) == alike(expected), command


def test_it_notices_a_difference() -> None:
    assert alike("volume a is attached") != alike("volume a is detached")
    assert alike("… attaching\nvolume a") == alike("volume a")


def test_the_state_is_removed_as_the_page_says(scene: Scene, stopped: Any) -> None:
    volume = scene.volume()
    scene.attach(stopped.name(), volume)
    at = scene.mount_point()
    pull(stopped, VolumeId(volume.id), CONFIG)
    umount(at)
    state = at.parents[1]
    commands = [c for c, _ in session("docs/operations.md") if "/var/lib/moorline" in c]
    begin = next(n for n, command in enumerate(commands) if command.startswith("chattr"))
    assert [command.split()[0] for command in commands[begin:]] == ["chattr", "rm"]
    for command in commands[begin:]:
        subprocess.run(
            command.replace("/var/lib/moorline", str(state)), shell=True, check=True, timeout=60
        )
    assert not state.exists()
