"""Builds the simulator with the distribution's Go and its govmomi library, once for each recipe."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from lab.images import cache

SOURCES = Path(__file__).with_name("simulator")
LIBRARY = Path("/usr/share/gocode/src/github.com/vmware/govmomi/simulator")
_PACKAGE = "moorline-vcenter"


class Missing(Exception):
    """What it takes to build the simulator is not installed."""


def binary() -> Path:
    """The simulator, built if it must be: half a minute. Raises Missing."""
    recipe = hashlib.sha256()
    for source in sorted(SOURCES.glob("*.go")):
        recipe.update(source.read_bytes())
    built = cache() / f"vcenter-{recipe.hexdigest()[:8]}"
    with (cache() / "vcenter-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.exists():
            _build(built)
    return built


def _build(built: Path) -> None:
    if shutil.which("go") is None or not LIBRARY.is_dir():
        raise Missing(
            "the vCenter simulator needs Debian's packages golang-go and"
            " golang-github-vmware-govmomi-dev (apt-get install --no-install-recommends)"
        )
    with tempfile.TemporaryDirectory(dir=cache()) as directory:
        work = Path(directory)
        (work / "src").mkdir()
        shutil.copytree(SOURCES, work / "src" / _PACKAGE)
        environment = {
            **os.environ,
            "GOPATH": f"{work}:/usr/share/gocode",
            "GO111MODULE": "off",  # the library comes from the distribution
            "CGO_ENABLED": "0",
        }
        out = work / "out"
        subprocess.run(
            ["go", "build", "-ldflags", "-s -w", "-o", str(out), _PACKAGE],
            env=environment,
            cwd=work,
            check=True,
        )
        out.replace(built)
