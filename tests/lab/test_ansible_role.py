"""The role, in a copy of this system: what it writes goes to a layer that is thrown away."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from ansible_rig import ANSIBLE, ROOT, ansible

from lab import host

OFFLINE = ["--no-index", "--no-deps"]
"""A private host has no network: what pip would bring is what the tests themselves have."""
LIBRARIES = {"PYTHONPATH": "/tmp/libraries"}
VARIABLES = {
    "moorline_python": sys.executable,
    "moorline_pip_arguments": OFFLINE,
    "moorline_agent": False,  # systemd is not there
    "moorline_build_packages": [],
    "moorline_options": {
        "moorline": {"agent_metrics": "127.0.0.1:9877", "agent_anyone_may_look": True},
        "libvirt": {"local_directories": "/srv/disks"},
    },
    "moorline_members": ["nobody"],
}


@pytest.fixture
def system(lab: Path, tmp_path: Path) -> Iterator[Path]:
    """This system's files; nothing of Moorline is in it but this checkout."""
    with ExitStack() as mounts:

        def mount(*words: str | Path) -> None:
            subprocess.run(["mount", *words], check=True)
            mounts.callback(host.umount, Path(words[-1]))

        mount("-t", "tmpfs", "layer", tmp_path)
        for name in ("upper", "work", "root"):
            (tmp_path / name).mkdir()
        layers = f"lowerdir=/,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
        root = tmp_path / "root"
        mount("-t", "overlay", "-o", layers, "overlay", root)
        for name in ("dev", "proc"):
            mount("--bind", f"/{name}", root / name)
        mount("-t", "tmpfs", "tmp", root / "tmp")
        for each in ("etc/moorline", "etc/libvirt/hooks/qemu.d", "opt/moorline"):
            subprocess.run(["rm", "-rf", root / each], check=True)
        yield root


def test_a_wheel_is_installed_once(collection: Path, system: Path) -> None:
    home = Path("/tmp/role")
    subprocess.run(["cp", "-r", collection, system / "tmp/role"], check=True)
    libraries = system / "tmp/libraries"
    libraries.mkdir()
    for each in Path(sysconfig.get_path("purelib")).iterdir():
        if "moorline" not in each.name:
            (libraries / each.name).symlink_to(each)
    source = system / "tmp/source"  # a build leaves something in it
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "src"):
        subprocess.run(["cp", "-r", ROOT / name, source], check=True)
    wheel = [ANSIBLE / "python", "-m", "pip", "wheel", "-q", *OFFLINE, "--no-build-isolation"]
    subprocess.run([*wheel, "-w", system / "tmp", source], check=True)
    (built,) = (system / "tmp").glob("moorline-*.whl")
    given = {**VARIABLES, "moorline_wheel": f"/tmp/{built.name}"}
    role = {"role": "moorline.moorline.host", "vars": given, "environment": LIBRARIES}
    book = json.dumps([{"hosts": "localhost", "gather_facts": False, "roles": [role]}])
    (system / "tmp/play.yml").write_text(book)

    def changed(*words: str) -> int:
        to = ("-c", "local", "-i", "localhost,")
        said = ansible(home, "playbook", *to, *words, "/tmp/play.yml", root=system).stdout
        (count,) = re.findall(r"changed=(\d+)", said)
        return int(count)

    assert changed("--check") > 3
    assert not (system / "opt/moorline").exists()
    assert changed() > 3
    check = ["chroot", system, "/usr/local/bin/moorline", "config", "check"]
    subprocess.run(check, env={**os.environ, **LIBRARIES}, check=True)
    conf = (system / "etc/moorline/moorline.conf").read_text()
    assert "[moorline]\nagent_metrics = 127.0.0.1:9877\nagent_anyone_may_look = true\n" in conf
    assert re.search(r"^moorline:.*:nobody$", (system / "etc/group").read_text(), re.M)
    assert (system / "etc/systemd/system/moorline-agent.service").is_file()
    assert (system / "etc/libvirt/hooks/qemu.d/moorline").is_file()
    assert changed() == 0
    assert changed("--check") == 0
