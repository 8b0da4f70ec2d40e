"""The .rpm that packaging/build-rpm makes here: what is in it; it comes and goes in a copied root.

The copy is of Debian, so what the package needs is not there by the names of other distributions.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lab import host
from lab.images import CHECKOUT
from tests.support.missing import missing

HOOK = "etc/libvirt/hooks/qemu.d/moorline"
TIMEOUT = 1200


def run(*words: str | Path, code: int = 0) -> str:
    """What a command says on standard output and standard error."""
    ran = subprocess.run(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=TIMEOUT
    )
    assert ran.returncode == code, ran.stdout
    return ran.stdout


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, built in minutes."""
    if shutil.which("rpmbuild") is None:
        missing("needs rpmbuild")
    directory = tmp_path_factory.mktemp("rpm")
    run(CHECKOUT / "packaging/build-rpm", directory)
    (package,) = directory.iterdir()
    return package


@pytest.fixture
def system(tmp_path: Path) -> Iterator[Path]:
    """This system's files, without Moorline; what is written goes to a layer thrown away."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with ExitStack() as mounts:

        def mount(*words: str | Path) -> None:
            run("mount", *words)
            mounts.callback(host.umount, Path(words[-1]))

        mount("-t", "tmpfs", "layer", tmp_path)
        for name in ("upper", "work", "root"):
            (tmp_path / name).mkdir()
        root = tmp_path / "root"
        layers = f"lowerdir=/,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
        mount("-t", "overlay", "-o", layers, "overlay", root)
        for name in ("dev", "proc"):
            mount("--bind", f"/{name}", root / name)
        mount("-t", "tmpfs", "run", root / "run")
        for each in ("opt/moorline", "var/lib/moorline", "var/lib/rpm", HOOK):
            run("rm", "-rf", root / each)
        yield root


def test_what_is_in_it(package: Path) -> None:
    files = run("rpm", "-qpl", package).splitlines()
    lasting = [each for each in files if not each.startswith("/opt/moorline")]
    man = [each for each in lasting if each.startswith("/usr/share/man/man1/moorline")]
    assert len(man) > 40
    assert sorted(set(lasting) - {*man}) == [
        f"/{HOOK}",
        "/usr/bin/moorline",
        "/usr/lib/systemd/system/moorline-agent.service",
        "/usr/lib/systemd/system/moorline.slice",
        "/usr/lib/sysusers.d/moorline.conf",
        "/usr/lib/tmpfiles.d/moorline.conf",
        "/usr/share/bash-completion/completions/moorline",
        "/usr/share/doc/moorline",
        "/usr/share/doc/moorline/CHANGELOG.md",
        "/usr/share/doc/moorline/README.md",
        "/usr/share/doc/moorline/examples",
        "/usr/share/doc/moorline/examples/moorline-alerts.yaml",
        "/usr/share/doc/moorline/examples/moorline-dashboard.json",
        "/usr/share/doc/moorline/examples/moorline.conf",
        "/usr/share/fish/vendor_completions.d/moorline.fish",
        "/usr/share/licenses/moorline",
        "/usr/share/licenses/moorline/LICENSE",
        "/usr/share/zsh/site-functions/_moorline",
    ]
    assert run("rpm", "-qpc", package).split() == [f"/{HOOK}"]
    needs = run("rpm", "-qp", "--requires", package).split()
    assert f"/usr/bin/python{sysconfig.get_python_version()}" in needs
    assert "libvirt.so.0()(64bit)" in needs
    assert not [each for each in needs if each.startswith("/tmp")]
    provided = {each.split()[0] for each in run("rpm", "-qp", "--provides", package).splitlines()}
    assert provided - {"moorline(x86-64)"} == {"moorline", "config(moorline)"}  # no library


def test_it_comes_and_goes(package: Path, system: Path) -> None:
    shutil.copy(package, system / "moorline.rpm")

    def rpm(*words: str, code: int = 0) -> str:
        return run("chroot", system, "rpm", *words, code=code)

    def inside(*words: str, code: int = 0) -> str:
        return run("chroot", system, *words, code=code)

    (system / "opt/moorline").mkdir()
    (system / "opt/moorline/pyvenv.cfg").touch()
    assert "pip has installed Moorline" in rpm("-i", "--nodeps", "moorline.rpm", code=1)
    shutil.rmtree(system / "opt/moorline")

    assert "systemctl enable --now moorline-agent" in rpm("-i", "--nodeps", "moorline.rpm")
    assert rpm("-V", "--nodeps", "moorline") == ""
    assert "moorline" in inside("moorline", "version", "-o", "json")
    inside("getent", "group", "moorline")
    assert (system / "run/moorline").is_dir()
    inside("moorline", "config", "check", "--output", "json")

    (system / HOOK).write_text("#!/bin/sh\n# the operator's\n")
    (system / "run/a.raw").write_bytes(bytes(1 << 20))
    attach = "moorline attach test /run/a.raw --format raw --level connected -c test:///default"
    inside(*attach.split())
    rpm("-U", "--nodeps", "--replacepkgs", "moorline.rpm")  # an upgrade
    assert "the operator's" in (system / HOOK).read_text()
    assert (system / "opt/moorline/bin/moorline").exists()
    key = (system / "var/lib/moorline/key").read_bytes()

    assert "attachments are left" in rpm("-e", "moorline")
    assert not (system / "opt/moorline").exists()
    assert not (system / "usr/bin/moorline").exists()
    assert (system / "var/lib/moorline/key").read_bytes() == key
