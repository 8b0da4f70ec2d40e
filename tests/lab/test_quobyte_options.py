"""How Quobyte volumes are mounted: by whose configuration, as which user, in whose cgroup."""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from scene import Scene

from lab import guest as guests
from lab.command import Moorline
from lab.guest import Guest
from lab.quobyte.cluster import Quobyte
from tests.support.missing import missing

# --- configuration ---------------------------------------------------------------

NOVA_CONF = """\
[DEFAULT]
compute_driver = libvirt.LibvirtDriver
transport_url = rabbit://nova:secret@controller
my_ip = 10.0.0.3
[libvirt]
virt_type = kvm
quobyte_mount_point_base = {base}
quobyte_client_cfg = {cfg}
[neutron]
auth_type = password
"""


def test_an_existing_nova_conf_will_do(scene: Scene, guest: Guest) -> None:
    cfg = scene.write("client.cfg", "")
    base = scene.directory / "nova/mnt"
    conf = scene.write("nova.conf", NOVA_CONF.format(base=base, cfg=cfg))
    volume = scene.volume()
    scene.attach(guest.name, volume, "--config-file", str(conf))
    at = scene.mount_point()
    assert at.parent == base
    assert scene.mount_calls() == [
        ["mount.quobyte", "--disable-xattrs", scene.share.export, str(at), "-c", str(cfg)]
    ]
    guest.write(volume.id, "as nova would")
    # Without its configuration new mounts go elsewhere: this one is undone where it was made.
    scene.detach(guest.name, volume)
    assert scene.mounts() == []
    assert list(base.iterdir()) == []


def test_mounted_as_the_service_user(scene: Scene, quobyte: Quobyte, guest: Guest) -> None:
    if shutil.which("fusermount3") is None:
        missing("needs fusermount3 (package fuse3)")
    user = next(n for n in ("libvirt-qemu", "qemu") if _exists(n))
    uid = pwd.getpwnam(user).pw_uid
    shutil.chown(scene.share.path, user)
    volume = scene.volume()
    shutil.chown(volume.file, user)
    conf = scene.write("user.conf", f"[libvirt]\nquobyte_mount_user = {user}\n")
    scene.attach(guest.name, volume, "--config-file", str(conf))
    (call,) = quobyte.calls()
    assert call["uid"] == uid
    table = Path("/proc/self/mountinfo").read_text()
    assert f"user_id={uid}" in next(x for x in table.splitlines() if str(scene.mount_point()) in x)
    guest.write(volume.id, "as the service user")
    assert volume.bytes() == guests.pattern("as the service user")
    scene.detach(guest.name, volume, "--config-file", str(conf))
    assert scene.is_clean()


def _exists(user: str) -> bool:
    try:
        return bool(pwd.getpwnam(user))
    except KeyError:
        return False


# --- systemd ------------------------------------------------------------------------

SYSTEMD_RUN = """\
#!/bin/sh
# Notes how it is called, and does what systemd-run --scope does: becomes the command.
printf '%s\\n' "$@" > "{note}"
while [ "$1" != -- ]; do shift; done
shift
exec "$@"
"""


@pytest.fixture
def systemd(scene: Scene) -> Iterator[tuple[Moorline, Path]]:
    """The command where systemd seems to run, and the file that tells of its scope."""
    commands, note = scene.directory / "bin", scene.directory / "scope"
    commands.mkdir()
    script = commands / "systemd-run"
    script.write_text(SYSTEMD_RUN.format(note=note))
    script.chmod(0o755)
    booted = Path("/run/systemd/system")  # what sd_booted(3) looks at
    booted.mkdir(parents=True)
    path = f"{commands}:{os.environ['PATH']}"
    try:
        yield Moorline(scene.moorline.state, {"PATH": path}), note
    finally:
        booted.rmdir()
        booted.parent.rmdir()


def test_the_daemon_gets_a_scope_of_its_own(
    scene: Scene, systemd: tuple[Moorline, Path], guest: Guest
) -> None:
    moorline, note = systemd
    volume = scene.volume()
    moorline("attach", guest.name, "--connection", str(volume.connection))
    at = scene.mount_point()
    words = note.read_text().splitlines()
    assert words[:3] == ["--scope", "--quiet", "--collect"]
    assert words[3].startswith(f"--unit=moorline-{at.name}-")
    mount = ["mount.quobyte", "--disable-xattrs", scene.share.export, str(at)]
    assert words[words.index("--") + 1 :] == mount
    note.unlink()
    moorline("detach", guest.name, volume.id)
    assert not note.exists()  # umount leaves no daemon behind
    assert scene.is_clean()
