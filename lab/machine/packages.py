"""Packages of Moorline, each built on a tree of its release: `make packages`.

The tree is the one that machines boot from, with the build's own packages and wheels, made once for
each list of libraries. A build has no network, and writes outside of the tree alone.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
import tomllib
from pathlib import Path

from lab.images import CHECKOUT, cache
from lab.machine import tree
from lab.machine.tree import WHEELS, Builder, Unavailable

NEEDS = ("build-essential", "debhelper", "man-db")
"""Beyond what a tree has for an installation by pip; man-db for those who look at the result."""
COPIED = (
    *("CHANGELOG.md", "LICENSE", "README.md", "constraints.txt", "docs", "packaging"),
    *("pyproject.toml", "src"),
)
CONSTRAINTS = ("constraints.txt", "packaging/build-constraints.txt")
_TEXT = Path(__file__).read_text()
_TIMEOUT = 1200
"""Seconds for a build, on a machine that others use too."""


def build(release: str, directory: Path) -> Path:
    """Build the package of *release* into *directory*; minutes. Raises Unavailable."""
    base = _base(release)
    with tempfile.TemporaryDirectory(dir=cache(), prefix="unfinished-package-") as work:
        inside = Path(work)
        for name in COPIED:
            each = CHECKOUT / name
            (shutil.copytree if each.is_dir() else shutil.copy2)(each, inside / name)
        for name in ("built", "tmp"):
            (inside / name).mkdir()
        command = ["systemd-nspawn", "-q", "--register=no", "--keep-unit", "--as-pid2", "--pipe"]
        command += ["--read-only", "--private-network", f"--bind={inside}:/mnt", "-D", str(base)]
        command += ["--setenv=TMPDIR=/mnt/tmp", "--setenv=HOME=/mnt/tmp"]
        command += [f"--setenv=SOURCE_DATE_EPOCH={_date()}"]
        log = cache() / f"package-{release}.log"
        with log.open("w") as output:
            ran = subprocess.run(
                [*command, "/mnt/packaging/build-deb", "/mnt/built"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=_TIMEOUT,
                check=False,
            )
        if ran.returncode:
            last = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
            raise Unavailable(f"the package of {release} was not built; {log} ends\n{last}")
        (package,) = (inside / "built").glob("moorline_*.deb")
        return Path(shutil.copy2(package, directory))


def _date() -> str:
    """When the checkout was committed, in seconds: the package of a commit is always the same."""
    command = ["git", "-C", str(CHECKOUT), "log", "-1", "--format=%ct"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    newest = (CHECKOUT / "pyproject.toml").stat().st_mtime
    return told.stdout.strip() or os.environ.get("SOURCE_DATE_EPOCH", str(int(newest)))


def _base(release: str) -> Path:
    lower = tree.build(release)
    parts = [_TEXT, lower.name, _libraries()]
    parts += [(CHECKOUT / each).read_text() for each in CONSTRAINTS]
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]
    base = cache() / f"packaging-{release}-{digest}"
    with (cache() / f"packaging-{release}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not base.exists():
            tree.build_at(base, f"packaging-{release}", lambda builder: _fill(builder, lower))
    return base


def _libraries() -> str:
    """What pip is asked for."""
    ours = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    project = ours["project"]
    wanted = project["dependencies"], project["optional-dependencies"], ours["build-system"]
    return repr(wanted)


def _fill(builder: Builder, lower: Path) -> None:
    """The release's tree, and what a build takes from elsewhere."""
    builder.copy(lower)
    source = builder.tree / "moorline"
    source.mkdir()
    for name in ("README.md", "pyproject.toml", *CONSTRAINTS):
        shutil.copy2(CHECKOUT / name, source)
    shutil.copytree(CHECKOUT / "src", source / "src")
    with builder.building():
        builder.install(*NEEDS)
        builder.inside("python3", "-m", "venv", "/build")
        # As in packaging/installed.mk, which is given what is compiled here.
        wheel = ["env", "CFLAGS=-g0", "/build/bin/pip", "wheel", "-q", "--wheel-dir", WHEELS]
        for each in CONSTRAINTS:
            wheel += ["-c", f"/moorline/{Path(each).name}"]
        builder.inside(*wheel, "/moorline[all]", "click-man")
        builder.inside("rm", "-r", "/build", "/moorline")
    for ours in (builder.tree / WHEELS.lstrip("/")).glob("moorline-*"):
        ours.unlink()
