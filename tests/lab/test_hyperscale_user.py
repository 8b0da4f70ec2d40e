"""HyperScale for who is not root: os-brick's privsep helper, which sudo starts, runs hscli."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from libvirt_rig import until

from lab import host
from lab.hyperscale.installation import HyperScale, HyperScaleVolume
from tests.support.missing import missing

USER = "nobody"
SUDOERS = """\
Defaults secure_path="{path}"
Defaults env_keep += "MOORLINE_LAB"
root ALL=(ALL:ALL) ALL
{user} ALL=(root) NOPASSWD: ALL
"""
CONNECTOR = """
import json, os, sys
from os_brick.initiator.connector import InitiatorConnector
from moorline.backends.osbrick.hyperscale_connector import register
assert os.geteuid() != 0
register()
connector = InitiatorConnector.factory("veritas_hyperscale", "sudo")
properties = json.loads(sys.argv[1])["data"]
device = connector.connect_volume(properties)
assert connector.get_volume_paths(properties) == [device["path"]]
assert connector.check_valid_device(device["path"])
size = connector.extend_volume(properties)
connector.disconnect_volume(properties, device)
print(json.dumps([device, size]))
"""
BRIDGE = """
import json, os, sys
from pathlib import Path
from moorline.backends.osbrick.hyperscale import HyperScale
from moorline.errors import MoorlineError
from moorline.host.linux import Linux
assert os.geteuid() != 0
host = Linux()
backend = HyperScale(host, Path(sys.argv[2]))
volume = backend.parse(json.loads(sys.argv[1]))
told = []
for verb in sys.argv[3:]:
    try:
        told.append(type(getattr(backend, verb)(volume)).__name__)
    except MoorlineError as e:
        told.append(f"{type(e).__name__}: {e}")
host.close()
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def sudo(lab: Path) -> Iterator[None]:
    """sudo, with rules of this host alone."""
    if not shutil.which("sudo"):
        missing("sudo is not installed")
    rules = lab / "sudoers"
    clients = host.SOFTWARE / "commands"
    path = f"{Path(sys.executable).parent}:{clients}:/usr/sbin:/usr/bin:/sbin:/bin"
    rules.write_text(SUDOERS.format(user=USER, path=path))
    rules.chmod(0o440)
    subprocess.run(["mount", "--bind", str(rules), "/etc/sudoers"], check=True)
    yield
    subprocess.run(["umount", "/etc/sudoers"], check=True)


@pytest.fixture
def volume(sudo: None, lab: Path) -> Iterator[HyperScaleVolume]:
    product = HyperScale(lab)
    yield product.volume()
    product.clear()


@pytest.fixture
def locks(lab: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=lab, prefix="user-") as directory:
        Path(directory).chmod(0o755)
        shutil.chown(directory, USER)
        yield Path(directory) / "os-brick"


def start(code: str, *args: str) -> subprocess.Popen[str]:
    """Run Python as the user; it may read all, as the interpreter may lie in root's home."""
    reads_all = ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]
    user = ["setpriv", "--reuid", USER, "--regid", "nogroup", "--clear-groups", *reads_all]
    return subprocess.Popen(
        [*user, sys.executable, "-c", code, *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
    )


def told(process: subprocess.Popen[str]) -> Any:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return json.loads(out)


def bridge(volume: HyperScaleVolume, locks: Path, *verbs: str) -> list[str]:
    found: list[str] = told(start(BRIDGE, json.dumps(volume.connection()), str(locks), *verbs))
    return found


def test_the_connector_works_in_an_unmodified_os_brick(volume: HyperScaleVolume) -> None:
    device, size = told(start(CONNECTOR, json.dumps(volume.connection())))
    assert device["path"] == str(volume.device)
    assert device["refl_targets"] == "192.0.2.3,192.0.2.4"
    assert size == 16 << 20
    assert volume.loop is None
    assert {call["uid"] for call in volume.product.calls()} == {0}


def test_the_bridge_works(volume: HyperScaleVolume, locks: Path) -> None:
    verbs = ["connect", "inspect", "verify", "disconnect", "inspect"]
    answers = ["NoneType", "Linked", "BlockDevice", "NoneType", "Unlinked"]
    assert bridge(volume, locks, *verbs) == answers
    assert volume.loop is None
    assert list(locks.iterdir()) == []


def test_the_helper_is_killed_and_what_it_began_is_taken_over(
    volume: HyperScaleVolume, locks: Path
) -> None:
    volume.command(slow_after=1.5)
    process = start(BRIDGE, json.dumps(volume.connection()), str(locks), "connect", "inspect")
    until(lambda: bool(volume.product.calls()))
    hscli = volume.product.calls()[0]["pid"]
    helper = int(Path(f"/proc/{hscli}/stat").read_text().rpartition(")")[2].split()[1])
    assert "privsep-helper" in Path(f"/proc/{helper}/cmdline").read_text()
    os.kill(helper, signal.SIGKILL)
    (error, link) = told(process)
    assert error.startswith("Uncertain")
    assert link == "Unknown", "hscli is still at it, and its hold says so"
    until(lambda: not Path(f"/proc/{hscli}").exists())
    volume.command()
    assert bridge(volume, locks, "inspect", "disconnect", "inspect")[::2] == ["Linked", "Unlinked"]
    assert volume.loop is None
