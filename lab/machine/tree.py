"""Trees of Debian: what a machine boots from, made once by debootstrap and apt.

A tree has what README and docs/operations.md take for granted (libvirt, QEMU, Python, a
compiler), and the wheels that Moorline's installation asks pip for, because the machine itself
has no network. Moorline is not in it. The packages come from where this machine gets its own.

Trees are kept in ``.lab/`` (``$MOORLINE_LAB_CACHE``), named for their recipe: another recipe is
another tree. Nothing is ever changed in one: a machine writes to a layer of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from lab.images import CHECKOUT, cache

RELEASES = {"debian12": "bookworm", "debian13": "trixie"}
PACKAGES = (
    *("ca-certificates", "dbus", "libpam-systemd", "systemd-container", "systemd-sysv", "udev"),
    *("libvirt-clients", "libvirt-daemon-system", "qemu-system-x86", "qemu-utils"),
    *("gcc", "libvirt-dev", "pkg-config", "python3-dev", "python3-venv"),  # README, "Install it"
    *("e2fsprogs", "fuse3", "iproute2", "procps", "psmisc", "sqlite3", "util-linux"),
    "prometheus",  # it has promtool
)
WHEELS = "/var/lib/moorline-lab/wheels"
"""What pip is told to take packages from, inside."""
EXTRAS = ("libvirt", "agent")
"""Of the installation that docs/operations.md tells."""
_NEEDS = ("debootstrap", "systemd-nspawn", "script", "setpriv", "unshare", "nsenter")
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_TIMEOUT = 1800
"""Seconds for one command of a build: a slow mirror, and a machine that others use too."""
_TEXT = Path(__file__).read_text()
"""As it was loaded, whatever becomes of the file."""


class Unavailable(Exception):
    """Machines cannot be had here; its text says why."""


class Forbidden(Unavailable):
    """No installation helps: whatever this runs in, a container perhaps, does not allow it."""


def check() -> None:
    """Raises Unavailable, where no tree can be built or booted."""
    if os.geteuid() != 0:
        raise Unavailable("it needs root")
    if missing := [name for name in _NEEDS if shutil.which(name) is None]:
        raise Unavailable(f"not installed: {', '.join(missing)}")
    if not Path("/dev/fuse").exists():
        raise Forbidden("there is no /dev/fuse")
    if _is_overlay(cache()):
        raise Forbidden(f"{cache()} is on an overlay, which no other overlay can write to")
    _demand_nspawn()


@functools.cache
def _demand_nspawn() -> None:
    """Run nothing in a container of this machine's own files."""
    command = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "systemd-nspawn", "-q"]
    command += ["--register=no", "--keep-unit", "--volatile=yes", "--private-network"]
    tried = subprocess.run(
        [*command, "--as-pid2", "-D", "/", "true"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if tried.returncode:
        raise Forbidden(f"systemd-nspawn cannot run here: {tried.stderr.strip()}")


def _is_overlay(directory: Path) -> bool:
    command = ["findmnt", "-n", "-o", "FSTYPE", "-T", str(directory)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() == "overlay"


def path(release: str) -> Path:
    """Where the tree of *release* is, or will be."""
    return cache() / f"tree-{release}-{_recipe(release)}"


def _recipe(release: str) -> str:
    ours = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    parts = [_TEXT, release, repr(_requirements(ours))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def _requirements(pyproject: dict[str, object], extras: Sequence[str] = EXTRAS) -> list[str]:
    """What pip fetches for Moorline's installation, its build tools included."""
    project, build = pyproject["project"], pyproject["build-system"]
    assert isinstance(project, dict)
    assert isinstance(build, dict)
    more = [each for extra in extras for each in project["optional-dependencies"][extra]]
    return [*build["requires"], "wheel", *project["dependencies"], *more]


def build(release: str) -> Path:
    """The tree of *release*, made unless it is there; minutes, and it needs the network.

    Raises Unavailable, where it cannot be made.
    """
    check()
    tree = path(release)
    with (cache() / f"tree-{release}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not tree.exists():
            build_at(tree, release, lambda builder: _fill(builder, release))
    return tree


def build_at(tree: Path, name: str, fill: Callable[[Builder], None]) -> None:
    """Make *tree*, named *name* and a digest, of what *fill* puts into it, and drop older ones.

    Raises Unavailable.
    """
    work = Path(tempfile.mkdtemp(dir=cache(), prefix=f"unfinished-{name}-"))
    log = cache() / f"tree-{name}.log"
    print(f"lab: building a tree of {name}; see {log}", file=sys.stderr, flush=True)
    try:
        with log.open("w") as output:
            fill(Builder(work, output.fileno()))
        for old in tree.parent.glob(f"{tree.name.rpartition('-')[0]}-????????"):
            shutil.rmtree(old)
        work.chmod(0o755)
        work.rename(tree)  # all or nothing: a build that was interrupted leaves no such tree
    except (subprocess.SubprocessError, OSError) as e:
        last = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
        raise Unavailable(f"the tree of {name} cannot be built: {e}\n{last}") from e
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _fill(builder: Builder, release: str) -> None:
    builder.bootstrap(RELEASES[release])
    with builder.building():
        builder.install(*PACKAGES)
        builder.wheels(EXTRAS)
    builder.furnish()


class Builder:
    """A tree that is being made; what its commands say goes to the descriptor *output*."""

    def __init__(self, tree: Path, output: int) -> None:
        self.tree = tree
        self._output = output

    def bootstrap(self, suite: str) -> None:
        mirror = [mirror] if (mirror := _mirror()) else []
        self._run(["debootstrap", "--variant=minbase", suite, str(self.tree), *mirror])

    def copy(self, tree: Path) -> None:
        self._run(["cp", "-a", "--reflink=auto", f"{tree}/.", str(self.tree)])

    @contextlib.contextmanager
    def building(self) -> Iterator[None]:
        """While packages and wheels can be had from outside, and nothing is started."""
        self.put("usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", 0o755)
        self.put("etc/dpkg/dpkg.cfg.d/lab", "force-unsafe-io\n")  # what is unfinished goes
        if _CERTIFICATES.exists():  # of a registry that this machine trusts
            self.put("hostca.crt", _CERTIFICATES.read_text())
        self.inside("apt-get", "-q", "update")
        yield
        self.inside("apt-get", "clean")
        for name in ("hostca.crt", "usr/sbin/policy-rc.d", "etc/dpkg/dpkg.cfg.d/lab"):
            (self.tree / name).unlink(missing_ok=True)
        shutil.rmtree(self.tree / "var/lib/apt/lists")

    def install(self, *packages: str) -> None:
        self.inside("apt-get", "-q", "-y", "install", "--no-install-recommends", *packages)

    def wheels(self, extras: Sequence[str]) -> None:
        """Build once what every installation would: libvirt's binding has no wheel."""
        ours = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
        self.inside("python3", "-m", "venv", "/build")
        wheel = ["/build/bin/pip", "wheel", "-q", "--wheel-dir", WHEELS]
        self.inside(*wheel, *_requirements(ours, extras), "pip")
        shutil.rmtree(self.tree / "build")

    def furnish(self) -> None:
        # The machine has loopback alone: its pip finds what README's pip finds, on its own disk.
        self.put("etc/pip.conf", f"[global]\nno-index = true\nfind-links = {WHEELS}\n")
        self.put("etc/hostname", "moorline-lab\n")
        self.put("etc/hosts", "127.0.0.1 localhost moorline-lab\n::1 localhost\n")
        self.put("etc/fuse.conf", "user_allow_other\n")
        journald = "[Journal]\nStorage=persistent\nRateLimitIntervalSec=0\n"
        self.put("etc/systemd/journald.conf.d/lab.conf", journald)
        self.put("etc/machine-id", "")
        for unit in ("prometheus.service", "prometheus-node-exporter.service", "apt-daily.timer"):
            self.inside("systemctl", "mask", unit)

    def put(self, name: str, text: str, mode: int = 0o644) -> None:
        file = self.tree / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def inside(self, *command: str) -> None:
        nspawn = ["systemd-nspawn", "-q", "--register=no", "--keep-unit", "--as-pid2", "--pipe"]
        nspawn += ["--resolv-conf=copy-host", "-D", str(self.tree)]
        nspawn += [f"--setenv={key}={value}" for key, value in self._environment().items()]
        self._run([*nspawn, *command])

    def _environment(self) -> dict[str, str]:
        kept = {"DEBIAN_FRONTEND": "noninteractive", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        kept["PIP_CONFIG_FILE"] = os.devnull  # a machine's own, which asks no index
        for key, value in os.environ.items():
            if key.lower().endswith("_proxy") or key in ("PIP_INDEX_URL", "PIP_DEFAULT_TIMEOUT"):
                kept[key] = value
        if _CERTIFICATES.exists():
            kept["PIP_CERT"] = "/hostca.crt"
        if index := _index():
            kept.setdefault("PIP_INDEX_URL", index)
        return kept

    def _run(self, command: Sequence[str]) -> None:
        subprocess.run(
            command,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            timeout=_TIMEOUT,
            check=True,
        )


def _mirror() -> str | None:
    """Where this machine gets Debian's packages from; None: debootstrap's own."""
    if override := os.environ.get("MOORLINE_LAB_MIRROR"):
        return override
    with contextlib.suppress(OSError):
        if not re.search(r"^ID=debian$", Path("/etc/os-release").read_text(), re.MULTILINE):
            return None
    for source in (Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("debian*")):
        with contextlib.suppress(OSError):
            if found := re.search(
                r"^(?:URIs:|deb)\s+.*?(https?://\S+/debian)/?\s", source.read_text(), re.M
            ):
                return found.group(1)
    return None


def _index() -> str | None:
    """The index that this machine's pip asks, if it was told of one."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    told = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found = re.search(r"^global\.index.url='([^']+)'$", told, re.MULTILINE)
    return found.group(1) if found else None
