"""A disk that comes after the command that asked for it was killed."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from lab.command import Moorline
from lab.demo import until
from lab.novalink import NovaLink as Lab
from lab.novalink.rig import image, mapped
from moorline.errors import Uncertain
from moorline.hypervisors.powervm.hypervisor import PowerVM
from moorline.model import GuestId


@pytest.fixture
def moorline(lab: Lab, tmp_path: Path) -> Moorline:
    password = tmp_path / "password"
    password.touch(mode=0o600)
    password.write_text(lab.password)
    settings = tmp_path / "moorline.conf"
    settings.write_text(
        f"[libvirt]\nconnection_uri = powervm://localhost:{lab.port}\n"
        f"[powervm]\nnovalink_user = {lab.user}\nnovalink_password_file = {password}\n"
        f"novalink_ca = {lab.ca}\n"
    )
    return Moorline(tmp_path / "state", after=("--config-file", str(settings)))


def test_it_is_not_detached_while_it_may_still_come(
    moorline: Moorline, lab: Lab, tmp_path: Path
) -> None:
    """NovaLink does not tell what it is at, so a call counts as long as its caller would wait."""
    path = str(image(tmp_path, "late.raw"))
    posts = lab.service.updates()
    lab.faults.set(slow_update=20)
    process = moorline.start("attach", "web01", path, "--format", "raw")
    until(lambda: lab.service.updating, "for the update to be under way")
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    lab.faults.set(slow_update=0)
    told = moorline("detach", "web01", path, "--timeout", "2", code=6)
    assert "NovaLink may still carry out" in told.stderr
    assert (mapped(lab), lab.service.updates()) == ([], posts)
    other = moorline("attach", "db01", path, "--format", "raw", "--timeout", "2", code=None)
    assert other.returncode != 0
    until(lambda: mapped(lab), "for what was asked for to come")
    moorline("detach", "web01", path, "--timeout", "100")
    assert mapped(lab) == []


def test_what_was_begun_long_ago_is_settled(vm: PowerVM) -> None:
    vm.settled(GuestId("0"), 60)
    with pytest.raises(Uncertain):
        vm.settled(GuestId("0"), 1)
