"""A Quobyte volume becomes a disk, end to end: what a user types, and what is so after it.

Nothing that the command says of itself is believed: guests, libvirt's XML, the
mount table, the stand-in's diary and the bytes of the files are asked.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from libvirt_rig import until
from scene import Scene, Volume, attribute, disk, halves, start_paused

from lab import guest as guests
from lab import host
from lab.guest import Guest


def test_attach_use_repeat_detach(scene: Scene, guest: Guest) -> None:
    volume = scene.volume()
    scene.attach(guest.name, volume)
    assert halves(guest.domain, volume) == (True, True)
    for inactive in (False, True):
        xml = disk(guest.domain, volume, inactive=inactive)
        assert xml is not None
        assert xml.findtext("serial") == volume.id
        assert attribute(xml, "source", "file") == f"{scene.mount_point()}/{volume.file.name}"
        how = {name: attribute(xml, "driver", name) for name in ("type", "cache", "io")}
        assert how == {"type": "raw", "cache": "none", "io": "native"}
    (line,) = scene.mounts()
    assert line[:2] == ("fuse.quobyte", f"quobyte@reg1/{scene.share.name}")

    guest.write(volume.id, "through the share", offset=65536)
    assert volume.bytes(65536) == guests.pattern("through the share")
    assert guest.digest(volume.id, offset=65536) == guests.digest(volume.bytes(65536))

    before = guest.domain.XMLDesc()
    scene.attach(guest.name, volume)  # repeated: success, and nothing happens
    assert guest.domain.XMLDesc() == before
    assert len(scene.mount_calls()) == 1

    scene.detach(guest.name, volume)
    assert halves(guest.domain, volume) == (False, False)
    until(lambda: guest.disks() == {})
    assert scene.is_clean()
    assert volume.bytes(65536) == guests.pattern("through the share")
    scene.detach(guest.name, volume)  # of what is not there: success


def test_guests_share_a_mount_until_the_last_is_gone(
    scene: Scene, guest: Guest, second_guest: Guest
) -> None:
    one, two = scene.volume(), scene.volume()
    scene.attach(guest.name, one)
    scene.attach(second_guest.name, two)
    assert len(scene.mounts()) == len(scene.mount_calls()) == 1
    second_guest.write(two.id, "two")
    (shown,) = scene.moorline.json("show", one.id)
    assert shown["used_by"] == [guest.name, second_guest.name]
    assert shown["also_wanted_by"] == [f"{two.id} on {second_guest.name}"]

    scene.detach(guest.name, one)
    assert len(scene.mounts()) == 1
    second_guest.write(two.id, "still")
    assert two.bytes() == guests.pattern("still")
    scene.detach(second_guest.name, two)
    assert scene.is_clean()


def test_a_stopped_guest_boots_with_the_disk(scene: Scene, libvirt_conn: Any) -> None:
    xml = guests.domain_xml("boots", host.images(), host.SOCKETS)
    domain = libvirt_conn.defineXML(xml)
    booted = Guest(domain, guests.GuestAgent(host.SOCKETS / "boots.agent"))
    try:
        volume = scene.volume()
        scene.attach("boots", volume)
        assert halves(domain, volume) == (False, True)
        assert len(scene.mounts()) == 1  # or it could not be started
        domain.create()
        booted.agent.ready()
        booted.write(volume.id, "after boot")
        assert volume.bytes() == guests.pattern("after boot")
        scene.detach("boots", volume)
        assert halves(domain, volume) == (False, False)
        assert scene.is_clean()
    finally:
        guests.remove(booted)


def test_a_stopped_guests_definition_keeps_the_mount(
    scene: Scene, stopped: Any, guest: Guest
) -> None:
    kept, used = scene.volume(), scene.volume()
    scene.attach(stopped.name(), kept)
    scene.attach(guest.name, used)
    forgotten = scene.moorline.state
    assert forgotten is not None
    # Another state directory: only the guest's definition can tell of the use now.
    (forgotten / "moorline.db").unlink()
    adopt(scene, guest.name, used)
    scene.detach(guest.name, used)
    assert len(scene.mounts()) == 1
    assert halves(stopped, kept) == (False, True)
    start_paused(stopped)  # it would fail if its disk were not there
    stopped.destroy()
    adopt(scene, stopped.name(), kept)
    scene.detach(stopped.name(), kept)
    assert scene.is_clean()


def adopt(scene: Scene, guest: str, volume: Volume) -> None:
    """Take a disk that bears our mark, and of which no record is left, for ours again."""
    scene.moorline("adopt", guest, "--connection", str(volume.connection))


def test_a_transient_guest(scene: Scene, transient_guest: Guest) -> None:
    volume = scene.volume()
    scene.attach(transient_guest.name, volume)
    transient_guest.write(volume.id, "passing")
    assert volume.bytes() == guests.pattern("passing")
    assert not transient_guest.domain.isPersistent()
    scene.detach(transient_guest.name, volume)
    assert transient_guest.disks() == {}
    assert scene.is_clean()


@pytest.mark.parametrize(("bus", "prefix"), [("virtio", "vd"), ("scsi", "sd")])
def test_bus_target_and_read_only(scene: Scene, guest: Guest, bus: str, prefix: str) -> None:
    volume = scene.volume()
    volume.file.chmod(0o644)  # of what is only read, the owner is not changed
    target = f"{prefix}q"
    scene.attach(guest.name, volume, "--bus", bus, "--target", target, "--read-only")
    for inactive in (False, True):
        xml = disk(guest.domain, volume, inactive=inactive)
        assert attribute(xml, "target", "bus") == bus
        assert attribute(xml, "target", "dev") == target
        assert xml is not None
        assert xml.find("readonly") is not None
    device = Path(guest.wait_for(volume.id)).name
    assert device.startswith(prefix)
    assert guest.agent.check(f"cat /sys/block/{device}/ro") == ["1"]
    scene.detach(guest.name, volume)
    assert scene.is_clean()


def test_qcow2_by_url_and_detach_by_url(scene: Scene, guest: Guest) -> None:
    file = scene.share.path / "system.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", file, "8M"], check=True)
    url = f"quobyte://{scene.share.export}/system.qcow2"
    (row,) = (scene.moorline.json("attach", guest.name, url, "--format", "qcow2")["view"],)
    xml = disk(guest.domain, row["volume"])
    assert attribute(xml, "driver", "type") == "qcow2"
    guest.write(row["volume"], "in clusters")
    # The registries in another order: the same share, the same volume.
    other = f"quobyte://REG2,reg1/{scene.share.name}/system.qcow2"
    scene.moorline("detach", guest.name, other)
    assert halves(guest.domain, row["volume"]) == (False, False)
    raw = scene.directory / "system.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", file, raw], check=True)
    with raw.open("rb") as content:
        assert content.read(65536) == guests.pattern("in clusters")
    assert scene.is_clean()


def test_a_local_file(scene: Scene, guest: Guest) -> None:
    file = scene.directory / "data.raw"
    file.write_bytes(bytes(1 << 20))
    view = scene.moorline.json("attach", guest.name, str(file), "--format", "raw")["view"]
    guest.write(view["volume"], "local")
    assert file.read_bytes()[:65536] == guests.pattern("local")
    assert scene.share.cluster.calls() == []
    scene.moorline("detach", guest.name, str(file))
    assert halves(guest.domain, view["volume"]) == (False, False)
    assert file.exists()


def test_dry_runs_change_nothing(scene: Scene, guest: Guest) -> None:
    volume = scene.volume()
    clean = guest.domain.XMLDesc()
    told = scene.attach(guest.name, volume, "--dry-run").stdout
    assert told.splitlines()[0] == "would connect, attach"
    assert "not looked at: the volume itself" in told
    assert guest.domain.XMLDesc() == clean
    assert scene.share.cluster.calls() == []
    assert scene.is_clean()
    scene.attach(guest.name, volume)
    attached = guest.domain.XMLDesc()
    assert scene.attach(guest.name, volume, "--dry-run").stdout == "nothing to do\n"
    told = scene.detach(guest.name, volume, "--dry-run").stdout
    assert told == "would detach, disconnect, forget\n"
    assert guest.domain.XMLDesc() == attached
    assert scene.attachments() == {volume.id: ("attached", "attached")}
    scene.detach(guest.name, volume)


def took(scene: Scene, done: Any, *steps: str) -> bool:
    """Whether a call took these steps; an agent's loop helps one that takes more than a second."""
    if not (scene.directory / "moorline/agent.sock").exists():
        return bool(done["steps"] == list(steps))
    left = iter(steps)
    return all(step in left for step in done["steps"])


@pytest.mark.parametrize(("output", "parse"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_output_for_programs(scene: Scene, guest: Guest, output: str, parse: Any) -> None:
    volume = scene.volume()
    done = parse(scene.attach(guest.name, volume, "-o", output).stdout)
    assert took(scene, done, "connect", "attach")
    assert done["view"]["device"] == attribute(disk(guest.domain, volume), "target", "dev")
    (row,) = parse(scene.moorline("list", "-o", output).stdout)
    assert (row["volume"], row["guest_id"]) == (volume.id, guest.domain.UUIDString())
    (row,) = parse(scene.moorline("show", volume.id[:8], "-o", output).stdout)
    assert row["link"] == str(scene.mount_point())
    assert parse(scene.moorline("sweep", "-o", output).stdout) == []
    refused = scene.moorline("show", "nothing", "-o", output, code=4)
    assert parse(refused.stderr)["error"] == "notfound"
    assert refused.stdout == ""
    done = parse(scene.detach(guest.name, volume, "-o", output).stdout)
    assert took(scene, done, "detach", "disconnect", "forget")
    assert parse(scene.detach(guest.name, volume, "-o", output).stdout) is None


# --- exit codes that no other test here has ------------------------------------


def test_usage_unknown_guest_and_unknown_volume(scene: Scene) -> None:
    scene.moorline("attach", "moor1", code=2)
    error = scene.attach("moor", scene.volume(), code=4).stderr
    assert "there is no guest moor" in error
    scene.moorline("show", "no-such-volume", code=4)
    scene.moorline("forget", "no-such-volume", code=4)
    assert scene.is_clean()


def test_a_client_that_fails_is_5_and_the_attachment_is_kept(scene: Scene, guest: Guest) -> None:
    volume = scene.volume()
    scene.share.command(fail={"code": 32, "stderr": "no route to registry"})
    failed = scene.attach(guest.name, volume, "--timeout", "0.5", code=5)
    assert f"volume {volume.id} is not attached to {guest.name}" in failed.stderr
    assert "mount.quobyte exited 32: mount.quobyte: no route to registry" in failed.stderr
    assert scene.attachments() == {volume.id: ("attached", "absent")}
    assert scene.mounts() == []
    shown = scene.moorline("show", volume.id).stdout
    assert "no route to registry" in shown
    scene.share.command()
    assert scene.moorline("sweep").stdout == ""
    assert halves(guest.domain, volume) == (True, True)
    scene.detach(guest.name, volume)
    assert scene.is_clean()


def test_another_owner_is_8(scene: Scene, guest: Guest) -> None:
    volume = scene.volume()
    scene.share.command(hang=True)  # it is the owner as long as this test needs
    args = ("attach", guest.name, "--connection", str(volume.connection))
    owner = scene.moorline.start(*args)
    until(lambda: scene.mount_calls())
    other = scene.volume()
    busy = scene.attach(guest.name, other, "--timeout", "0.1", code=8)
    assert f"process {owner.pid} owns this host's state" in busy.stderr
    scene.moorline("list")  # who only looks need not wait
    scene.share.command()
    os.kill(scene.share.cluster.calls()[0]["pid"], signal.SIGKILL)  # it is tried again
    assert owner.wait(60) == 0
    assert set(scene.attachments()) == {volume.id}
    scene.detach(guest.name, volume)


def without_powers(scene: Scene, *args: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a root whom file permissions stop, as they stop everybody else."""
    powers = "-dac_override,-dac_read_search"
    command = ["setpriv", "--bounding-set", powers, "--inh-caps", powers, "--"]
    command += [str(Path(sys.executable).with_name("moorline")), *args]
    env = {**os.environ, "MOORLINE_STATE_DIR": str(scene.moorline.state)}
    return subprocess.run(command, env=env, check=False, capture_output=True, text=True)


def test_state_that_is_not_ours_is_9(scene: Scene) -> None:
    for mode in (0o700, 0o755):  # another user's, who lets us in or not
        state = scene.directory / f"moorline-{mode:o}"
        state.mkdir(mode)
        state.chmod(mode)
        shutil.chown(state, "nobody")
        done = without_powers(scene, "list", "--state-dir", str(state))
        assert (done.returncode, done.stdout) == (9, ""), done.stderr
        assert done.stderr.startswith(f"moorline: {state}") or str(state) in done.stderr
        assert "Permission denied" in done.stderr
        assert list(state.iterdir()) == []


def test_a_libvirt_that_lets_us_not_in_is_9(scene: Scene) -> None:
    socket = Path("/run/libvirt/libvirt-sock")
    volume = scene.volume()
    shutil.chown(socket, "nobody")
    try:
        args = ("attach", "moor1", "--connection", str(volume.connection))
        done = without_powers(scene, *args)
    finally:
        shutil.chown(socket, "root")
    assert done.returncode == 9, done.stderr
    assert "qemu:///system" in done.stderr
    assert scene.is_clean()


def test_progress_is_told_on_stderr_alone(scene: Scene, guest: Guest) -> None:
    volume = scene.volume()
    scene.share.command(slow=1.2)
    done = scene.attach(guest.name, volume)
    assert f"… connecting volume {volume.id}" in done.stderr
    assert "…" not in done.stdout
    scene.moorline("detach", guest.name, volume.id)
    done = scene.attach(guest.name, volume, "--output", "json")
    json.loads(done.stdout)
    assert done.stderr == ""
    scene.detach(guest.name, volume)
    quiet = scene.attach(guest.name, volume, "--quiet")
    assert quiet.stderr == ""
    scene.detach(guest.name, volume)


def test_it_outlives_who_made_it(scene: Scene, guest: Guest) -> None:
    volume = scene.volume()
    scene.share.command(slow_after=2)
    args = ("attach", guest.name, "--connection", str(volume.connection))
    owner = scene.moorline.start(*args)
    until(lambda: scene.mounts())
    os.killpg(owner.pid, 9)
    owner.communicate()
    time.sleep(0.2)
    assert [p.name for p in scene.mount_point().iterdir()] == [volume.file.name]
    scene.share.command()
    scene.attach(guest.name, volume)
    assert len(scene.mount_calls()) == 1
    scene.detach(guest.name, volume)
    assert scene.is_clean()
