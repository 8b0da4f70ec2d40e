"""Every finding is provoked once on the real thing, and its advice followed to a clean doctor."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hyperscale_rig import hscli
from libvirt_rig import CONFIG, until
from loop import running_loop
from scene import (
    Scene,
    Volume,
    attribute,
    disk,
    findings,
    halves,
    kill_daemon,
    small_guest,
    start_paused,
)

from lab.host import umount
from lab.hyperscale.installation import HyperScale
from moorline.errors import Refused

RUNNING = "small2"
FOUND = 10


@pytest.fixture
def running(libvirt_conn: Any, leftovers_check: None) -> Iterator[Any]:
    """A guest that holds its disks open and lets none go: it has no system."""
    with small_guest(libvirt_conn, RUNNING, running=True) as domain:
        yield domain


@pytest.fixture
def hang(scene: Scene) -> Iterator[Callable[[bool], None]]:
    """Let the share's daemon hang, or go on; in the end it goes on."""
    yield lambda wanted: scene.share.daemon(**({"hang": True} if wanted else {}))
    scene.share.daemon()


def follow(
    scene: Scene, finding: dict[str, str], code: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run the command that a finding tells, and no other."""
    program, *words = shlex.split(finding["next"])
    if program == "moorline":
        return scene.moorline(*words, code=code)
    return subprocess.run([program, *words], check=True, capture_output=True, text=True)


def only(scene: Scene, check: str) -> dict[str, str]:
    """The one finding there is."""
    found = findings(scene)
    assert list(found) == [check], found
    assert all(found[check].values())
    return found[check]


@pytest.fixture
def hyperscale(lab: Path, leftovers_check: None) -> Iterator[HyperScale]:
    product = HyperScale(lab)
    yield product
    product.clear()


def test_links_that_nobody_needs(scene: Scene, stopped: Any) -> None:
    volume = scene.volume()
    scene.attach(stopped.name(), volume, "--level", "connected")
    assert findings(scene) == {}
    at = scene.mount_point()
    scene.moorline("release", stopped.name(), volume.id)
    assert scene.mounts(), "what is released stays"
    assert scene.moorline("doctor", code=FOUND).stdout.startswith("leaked-link: ")
    leaked = only(scene, "leaked-link")
    assert leaked["subject"] == str(at)
    dry = scene.moorline("repair", "--dry-run")
    assert dry.stdout == f"would disconnect {at}\n"
    assert scene.mounts()
    follow(scene, leaked)
    assert findings(scene) == {}
    assert scene.is_clean()
    at.mkdir()
    follow(scene, only(scene, "leftover"))
    assert findings(scene) == {}
    assert scene.is_clean()


def test_a_disk_that_nobody_wanted(scene: Scene, stopped: Any) -> None:
    volume = scene.volume()
    scene.attach(stopped.name(), volume)
    scene.moorline("release", stopped.name(), volume.id)
    found = findings(scene)
    assert volume.id in follow(scene, found["unwanted-disk"]).stdout
    assert scene.moorline("repair").stdout == "nothing to repair\n"
    assert halves(stopped, volume) == (False, True), "never without being told"
    left = scene.moorline("repair", "--disks", code=5).stdout
    named = f"{stopped.name()}/{volume.id} (vda, {scene.mount_point()}/{volume.file.name})"
    assert left == f"detach {named}: {stopped.name()} boots from it (--boot-disks)\n"
    assert halves(stopped, volume) == (False, True), "never what it boots from, without a word"
    assert f"detach {named}: done" in scene.moorline("repair", "--boot-disks").stdout
    assert halves(stopped, volume) == (False, False)
    assert findings(scene) == {}
    assert scene.is_clean()


def test_attachments_that_cannot_come_true(scene: Scene, libvirt_conn: Any, stopped: Any) -> None:
    lost, refused = scene.volume(), scene.volume()
    with small_guest(libvirt_conn, "small3") as domain:
        scene.attach(domain.name(), lost)
    follow(scene, only(scene, "lost-guest"))
    assert findings(scene) == {}
    scene.attach(stopped.name(), refused)
    refused.file.unlink()
    stopped.detachDeviceAlias(f"ua-{refused.id}", CONFIG)
    scene.moorline("sweep", code=5)
    finding = only(scene, "refused-attachment")
    assert "no file" in finding["what"] or "no such file" in finding["what"].lower()
    follow(scene, finding)
    explained = scene.moorline.json("explain", refused.id)[0]
    assert explained["step"] == "attach"
    assert explained["waits_for"]
    assert [entry["outcome"] for entry in explained["tried"]][-1] == "refused"
    follow(scene, explained)
    assert findings(scene) == {}
    assert scene.is_clean()


def test_something_else_in_the_way(scene: Scene, stopped: Any) -> None:
    volume = scene.volume()
    scene.attach(stopped.name(), volume)
    at = scene.mount_point()
    subprocess.run(["mount", "-t", "tmpfs", "somebodys", at], check=True)
    follow(scene, only(scene, "wrong-mount"))
    assert findings(scene) == {}
    umount(at)
    follow(scene, only(scene, "not-as-wanted"))
    umount(at)
    subprocess.run(["chattr", "-i", at], check=False, capture_output=True)
    (at / "precious").write_text("data")
    follow(scene, only(scene, "written-beneath"))
    assert (at.with_name(f"{at.name}.found") / "precious").read_text() == "data"
    follow(scene, only(scene, "not-as-wanted"))
    assert findings(scene) == {}
    shutil.rmtree(at.with_name(f"{at.name}.found"))
    scene.detach(stopped.name(), volume)
    assert scene.is_clean()


def test_another_file_is_the_volume_s_disk(scene: Scene, stopped: Any) -> None:
    volume, other = scene.volume(), scene.volume()
    scene.attach(stopped.name(), volume)
    stopped.detachDeviceAlias(f"ua-{volume.id}", CONFIG)
    plug(stopped, f"{scene.mount_point()}/{other.file.name}", volume, alias=True)
    finding = only(scene, "other-disk")
    assert str(other.file.name) in finding["what"]
    scene.moorline("sweep", code=5)
    assert halves(stopped, volume) == (False, True), "it is somebody's work, and stays"
    assert str(other.file.name) in follow(scene, finding).stdout
    refused = scene.detach(stopped.name(), volume, code=3).stderr
    assert str(other.file.name) in refused
    assert halves(stopped, volume) == (False, True)
    stopped.detachDeviceAlias(f"ua-{volume.id}", CONFIG)
    scene.detach(stopped.name(), volume)
    assert findings(scene) == {}
    assert scene.is_clean()


def test_something_else_has_the_name_of_the_device(
    scene: Scene, stopped: Any, hyperscale: HyperScale
) -> None:
    volume = hyperscale.volume()
    given = scene.write("hyperscale.json", volume.connection())
    scene.moorline("attach", stopped.name(), "--connection", str(given), "--level", "connected")
    hscli("disconnect_volume", volume_guid=volume.name)
    volume.device.write_text("somebody's notes")
    try:
        finding = only(scene, "wrong-device")
        scene.moorline("sweep", code=5)
        assert volume.device.read_text() == "somebody's notes"
        assert str(volume.device) in follow(scene, finding).stdout
    finally:
        volume.device.unlink()
    follow(scene, only(scene, "not-as-wanted"))
    assert findings(scene) == {}
    scene.moorline("detach", stopped.name(), volume.id)
    assert not volume.device.exists()
    assert findings(scene) == {}


def test_a_dead_share_under_a_running_guest(scene: Scene, running: Any) -> None:
    volume = scene.volume()
    scene.attach(RUNNING, volume)
    kill_daemon(scene.share)
    follow(scene, only(scene, "dead-share"), code=5)  # the guest is not helped by it
    assert len(scene.mounts()) == 1
    lost = only(scene, "stale-disk")
    assert lost["next"] == f"moorline detach {RUNNING} {volume.id}"
    running.destroy()
    scene.moorline("sweep")
    assert findings(scene) == {}
    scene.detach(RUNNING, volume)
    assert scene.is_clean()


def test_a_hung_share_is_aborted_only_when_told(
    scene: Scene, running: Any, fusectl: None, hang: Callable[[bool], None]
) -> None:
    volume = scene.volume()
    with running_loop(scene) as loop:
        moorline = loop.moorline
        loop.attach(running, volume)
        at = scene.mount_point()
        with pytest.raises(Refused, match="does not hang"):
            moorline.maintenance.abort(str(at))
        hang(True)
        (hung,) = moorline.maintenance.doctor().findings
        assert hung.check == "hung-share"
        refused = follow(scene, hung.to_dict(), code=3)
        assert f"{RUNNING} runs on {at}" in refused.stderr
        loop.controller.wake()
        until(lambda: moorline.maintenance.explain(volume.id)[0].due is not None, 10)
        (told,) = moorline.maintenance.explain(volume.id)
        assert (told.step, told.held_by) == ("wait", [RUNNING])
        assert told.since > time.time() - 30
        until(lambda: loop.trouble(volume))
        before = loop.controller.swept
        loop.controller.wake()
        until(lambda: loop.controller.swept is not before)
        assert loop.controller.swept
        assert loop.controller.swept.links == {"hung": 1}, "the alert lasts as long as it hangs"
        moorline.maintenance.abort(str(at), force=True)
        until(
            lambda: [f.check for f in moorline.maintenance.doctor().findings] == ["dead-share"], 20
        )
        hang(False)
        running.destroy()
        loop.settles()
        assert moorline.maintenance.doctor().findings == []
        seen = [entry.message for entry in moorline.maintenance.events() if entry.outcome != "done"]
        assert seen[0].endswith("does not answer")
        assert f"the FUSE connection of {at} was aborted" in seen
        loop.detach(running, volume)
    assert scene.is_clean()


def test_the_host_s_own_ailments(scene: Scene, stopped: Any) -> None:
    volume = scene.volume()
    scene.attach(stopped.name(), volume, "--level", "connected")
    state = scene.directory / "moorline"
    for spoil in (
        lambda: (state / "key").chmod(0o644),
        lambda: os.chown(state / "moorline.db", 12345, -1),
        lambda: state.chmod(0o777),
        lambda: os.chown(state, 12345, -1),
    ):
        spoil()
        follow(scene, only(scene, "open-state"))
        assert findings(scene) == {}
    state.chmod(0o700)
    finding = only(scene, "unreachable")
    assert "libvirt-qemu" in finding["what"]
    follow(scene, finding)
    assert findings(scene) == {}
    scene.detach(stopped.name(), volume)
    subprocess.run(["mount", "--bind", state, state], check=True)
    subprocess.run(["mount", "--make-private", state], check=True)
    try:
        scene.attach(stopped.name(), volume, "--level", "connected")
        follow(scene, only(scene, "propagation"))
        assert findings(scene) == {}
        scene.detach(stopped.name(), volume)
    finally:
        umount(state)
    away = scene.moorline.json("doctor", "-c", "qemu+unix:///system?socket=/none", code=FOUND)
    assert away["findings"][0]["check"] == "no-hypervisor"
    facts = scene.moorline.json("doctor")["facts"]
    assert facts["libvirt"].count(".") == facts["QEMU"].count(".") == 2
    assert scene.is_clean()


def test_a_disk_of_the_state_that_takes_nothing(scene: Scene) -> None:
    state = scene.directory / "moorline"
    state.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m,mode=711", "state", state], check=True)
    try:
        assert findings(scene) == {}
        ballast = state / "ballast"
        ballast.write_bytes(bytes(20 << 20))
        assert "state" in follow(scene, only(scene, "full-state-disk")).stdout
        ballast.unlink()
        assert findings(scene) == {}
        subprocess.run(["mount", "-o", "remount,ro", state], check=True)
        told = scene.moorline("doctor", code=FOUND).stdout
        assert f"the disk of {state} is read-only" in told
        follow(scene, only(scene, "full-state-disk"))
    finally:
        umount(state)


# --- adopt ---------------------------------------------------------------------------


def plug(domain: Any, path: str, volume: Volume, *, alias: bool) -> None:
    """As Nova does: serial and, since 2023, an alias."""
    mark = f"<alias name='ua-{volume.id}'/>" if alias else ""
    domain.attachDeviceFlags(
        f"<disk type='file' device='disk'><driver name='qemu' type='raw' cache='none'/>"
        f"<source file='{path}'/><target dev='vdc' bus='virtio'/>"
        f"<serial>{volume.id}</serial>{mark}</disk>",
        CONFIG,
    )


def test_a_disk_without_a_mark_is_adopted_and_released(scene: Scene, stopped: Any) -> None:
    first, volume = scene.volume(), scene.volume()
    guest = stopped.name()
    scene.attach(guest, first, "--level", "connected")
    plug(stopped, f"{scene.mount_point()}/{volume.file.name}", volume, alias=False)
    assert f"{scene.mount_point()}/{volume.file.name}  quobyte" in (
        scene.moorline("adopt", guest).stdout
    )
    words = ["adopt", guest, "--connection", str(volume.connection), "--target", "vdc"]
    scene.moorline(*words)
    assert scene.moorline.json(*words)["steps"] == []
    after = disk(stopped, volume, inactive=True)
    assert after is not None
    assert after.findtext("serial") == volume.id
    assert attribute(after, "target", "dev") == "vdc"
    assert findings(scene) == {}
    scene.moorline("release", guest, volume.id)
    assert halves(stopped, volume) == (False, True)
    scene.moorline(*words)
    start_paused(stopped)
    assert findings(scene) == {}
    stopped.destroy()
    scene.detach(guest, volume)
    assert halves(stopped, volume) == (False, False)
    scene.detach(guest, first)
    assert scene.is_clean()


def test_a_disk_on_nova_s_mount_is_adopted_where_it_is(scene: Scene, stopped: Any) -> None:
    volume = scene.volume()
    guest = stopped.name()
    at = scene.directory / "nova/mnt/0123456789abcdef0123456789abcdef"
    at.mkdir(parents=True)
    scene.directory.joinpath("nova").chmod(0o755)
    subprocess.run(["mount.quobyte", scene.share.export, at], check=True)
    try:
        plug(stopped, f"{at}/{volume.file.name}", volume, alias=True)
        words = ["adopt", guest, "--connection", str(volume.connection)]
        refused = scene.moorline(*words, code=3)
        setting = refused.stderr.rpartition(", and set ")[2].strip()
        assert setting.startswith("quobyte_mounted = ")
        config = scene.write("moorline.conf", f"[libvirt]\n{setting}\n")
        scene.moorline(*words, "--config-file", str(config))
        told = scene.moorline.json("show", volume.id, "--config-file", str(config))[0]
        assert (told["seen"], told["link"]) == ("attached", str(at))
        scene.moorline("detach", guest, volume.id, "--config-file", str(config))
        assert len(scene.mounts()) == 1, "what Nova mounted is Nova's"
    finally:
        umount(at)
    assert scene.is_clean()
