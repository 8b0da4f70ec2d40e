"""Guests that boot from a volume: launched, killed in between, started, removed; the hook."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from scene import Scene, Volume

from lab import bootable, host
from lab.agent import Agent
from lab.guest import Guest, GuestAgent
from lab.host import umount

NAME = "boot1"
HOOKS = Path("/etc/libvirt/hooks/qemu.d")


class Stage(Scene):
    """A scene with a volume to boot from, and a template that the lab can talk to."""

    def boot_volume(self) -> Volume:
        volume = self.volume()
        os.truncate(volume.file, bootable.SIZE)
        bootable.copy_to(volume.file)
        return volume

    def launch(self, boot: Volume, *words: str) -> list[str]:
        return ["launch", NAME, "--boot", str(boot.connection), *self.template(), *words]

    def template(self) -> list[str]:
        xml = bootable.template(NAME, host.images(), host.SOCKETS)
        return ["--template", str(self.write("template.xml", xml))]

    def domain(self) -> Any:
        return self.libvirt.lookupByName(NAME)

    def is_there(self) -> bool:
        return NAME in [domain.name() for domain in self.libvirt.listAllDomains()]

    def guest(self) -> Guest:
        agent = GuestAgent(host.SOCKETS / f"{NAME}.agent")
        agent.ready()
        return Guest(self.domain(), agent)


def virsh(*words: str) -> str:
    """Ask a libvirtd that was started anew, which the tests' connection does not reach."""
    command = ["virsh", "-q", *words]
    done = subprocess.run(command, check=True, timeout=60, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def stage(scene: Scene) -> Iterator[Stage]:
    stage = Stage(scene.moorline, scene.share, scene.libvirt)
    yield stage
    stage.moorline("remove", NAME, "--force", code=None)


POWER_BUTTON = Path("/etc/acpi/PWRF/00000080")
SHUTDOWN = "echo asked | dd of=/dev/vdb conv=notrunc,sync; umount -a; poweroff -f"


def hear_the_power_button(guest: Guest) -> None:
    """Have the guest do what a distribution's does when it is asked to shut down."""
    guest.agent.check(f"mkdir -p {POWER_BUTTON.parent}; echo '#!/bin/sh' > {POWER_BUTTON}")
    guest.agent.check(f"echo '{SHUTDOWN}' >> {POWER_BUTTON}; chmod +x {POWER_BUTTON}")
    guest.agent.check("acpid -d >/dev/null 2>&1 &")


def test_it_boots_from_the_volume_writes_to_it_and_shuts_down(stage: Stage) -> None:
    boot, data = stage.boot_volume(), stage.volume()
    stage.moorline(*stage.launch(boot, "--connection", str(data.connection)), deadline=120)
    guest = stage.guest()
    (root,) = guest.agent.check("mount | grep ' on / '")
    assert root.startswith("/dev/vda2 on / type ext4 (rw")
    guest.agent.check("echo kept > /kept; sync")
    guest.write(data.id, "data")
    again = stage.moorline.json(*stage.launch(boot, "--connection", str(data.connection)))
    assert (again["steps"], again["running"]) == ([], True)
    guest.agent.close()

    stage.domain().destroy()
    umount(stage.mount_point())
    told = stage.moorline.json("start", NAME)
    assert told["steps"] == ["connect", "start"]
    guest = stage.guest()
    assert guest.agent.check("cat /kept") == ["kept"]
    assert data.bytes(length=4) == b"data"

    stage.moorline("remove", NAME, "--timeout", "1", code=5)  # nothing in it hears the button
    assert guest.domain.isActive()
    assert stage.attachments().keys() == {boot.id, data.id}
    hear_the_power_button(guest)
    guest.agent.close()
    assert stage.moorline.json("remove", NAME)["steps"][0] == "stop"
    assert not stage.is_there()
    assert stage.is_clean()
    assert data.bytes(length=5) == b"asked"
    assert boot.file.stat().st_size == bootable.SIZE


def test_without_a_template_it_has_room_for_disks(stage: Stage) -> None:
    boot = stage.boot_volume()
    told = stage.moorline.json("launch", NAME, "--boot", str(boot.connection), "--memory", "96M")
    assert told["running"]
    for _ in range(3):
        stage.attach(NAME, stage.volume())
    stage.moorline("launch", NAME, "--boot", str(boot.connection), "--memory", "1G", code=3)
    stage.moorline("remove", NAME, "--force")
    assert stage.is_clean()


def test_a_guest_of_somebody_else_is_left_alone(stage: Stage, stopped: Any) -> None:
    boot = stage.boot_volume()
    words = ["launch", stopped.name(), "--boot", str(boot.connection)]
    stage.moorline(*words, code=7)
    stage.moorline("remove", stopped.name(), code=7)
    assert stage.is_clean()


def test_what_is_refused_leaves_nothing(stage: Stage) -> None:
    boot = stage.boot_volume()
    boot.file.unlink()
    stage.moorline(*stage.launch(boot), code=3)
    assert not stage.is_there()
    assert stage.is_clean()
    bad = stage.write("bad.xml", "<domain")
    stage.moorline("launch", NAME, "--boot", str(boot.connection), "--template", str(bad), code=3)
    assert not stage.is_there()


@pytest.mark.parametrize("after", ["the definition", "the mount", "the disk"])
def test_killed_on_the_way_the_same_command_goes_on(stage: Stage, after: str) -> None:
    boot = stage.boot_volume()
    seen = {
        "the definition": stage.is_there,
        "the mount": lambda: bool(stage.mounts()),
        "the disk": lambda: stage.is_there() and boot.id in stage.domain().XMLDesc(2),
    }[after]
    process = stage.moorline.start(*stage.launch(boot))
    while process.poll() is None and not seen():
        time.sleep(0.001)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it was faster"
    stage.moorline(*stage.launch(boot))
    assert stage.domain().isActive()
    assert len(stage.mounts()) == 1
    assert stage.attachments() == {boot.id: ("attached", "attached")}
    stage.moorline("remove", NAME, "--force")
    assert stage.is_clean()


@pytest.fixture
def hook(stage: Stage) -> Iterator[Path]:
    stage.moorline("hook", "install")
    yield HOOKS / "moorline"
    with suppress(FileNotFoundError):
        stage.moorline("hook", "uninstall")


def test_libvirt_makes_the_links_ready_before_it_starts_the_guest(stage: Stage, hook: Path) -> None:
    host.kill_libvirtd()  # it looks for hooks when it starts
    host.start_libvirtd()
    boot = stage.boot_volume()
    stage.moorline(*stage.launch(boot, "--no-start"))
    umount(stage.mount_point())
    assert stage.mounts() == []
    virsh("start", NAME)
    assert len(stage.mounts()) == 1
    assert virsh("domstate", NAME) == "running"


def test_a_guest_whose_links_cannot_be_made_does_not_start(stage: Stage, hook: Path) -> None:
    host.kill_libvirtd()
    host.start_libvirtd()
    boot = stage.boot_volume()
    stage.moorline(*stage.launch(boot, "--no-start"))
    umount(stage.mount_point())
    no_route = {"code": 1, "stderr": "no route to registry"}
    stage.share.cluster.command(stage.share.name, fail=no_route)
    script = hook.read_text()
    hook.write_text(script.replace("--quiet", "--quiet --timeout 2"))
    refused = subprocess.run(
        ["virsh", "-q", "start", NAME], check=False, timeout=60, capture_output=True, text=True
    )
    assert refused.returncode != 0
    assert "no route to registry" in refused.stderr
    stage.share.cluster.command(stage.share.name)


def test_the_hook_asks_the_agent_also_while_that_starts_the_guest(
    stage: Stage, hook: Path, tmp_path: Path
) -> None:
    host.kill_libvirtd()
    host.start_libvirtd()
    boot = stage.boot_volume()
    agent = Agent(stage.moorline, tmp_path / "log")
    try:
        launched = stage.moorline.json(*stage.launch(boot))
        assert launched["steps"] == ["define", "connect", "attach", "start"]
        virsh("destroy", NAME)
        umount(stage.mount_point())
        virsh("start", NAME)
        assert len(stage.mounts()) == 1
        virsh("destroy", NAME)
        umount(stage.mount_point())
        stage.moorline("start", NAME)
        assert len(stage.mounts()) == 1
        assert virsh("domstate", NAME) == "running"
        stage.moorline("remove", NAME, "--force")
        assert stage.is_clean()
    finally:
        agent.stop()
