"""A share that lives on in another mount namespace, or as a bind mount, keeps nobody waiting."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from libvirt_rig import until
from scene import Scene, daemons, findings

from lab.guest import Guest, pattern
from lab.host import umount


@contextmanager
def namespace() -> Iterator[int]:
    """A process in a mount namespace of its own, which keeps what is mounted now."""
    ours = Path("/proc/self/ns/mnt").stat().st_ino
    process = subprocess.Popen(["unshare", "--mount", "sleep", "600"])
    try:
        until(lambda: Path(f"/proc/{process.pid}/ns/mnt").stat().st_ino != ours)
        until(lambda: "sleep" in Path(f"/proc/{process.pid}/comm").read_text())
        yield process.pid
    finally:
        process.kill()
        process.wait()


def has(pid: int, at: Path) -> bool:
    return f" {at} " in Path(f"/proc/{pid}/mountinfo").read_text()


def attach_and_write(scene: Scene, guest: Guest, text: str) -> None:
    volume = scene.volume()
    scene.attach(guest.name, volume)
    guest.write(volume.id, text)
    assert volume.bytes() == pattern(text)
    scene.detach(guest.name, volume)


def test_in_another_mount_namespace(scene: Scene, guest: Guest) -> None:
    volume = scene.volume()
    scene.attach(guest.name, volume, "--level", "connected")
    at = scene.mount_point()
    with namespace() as pid:
        scene.detach(guest.name, volume)
        assert scene.mounts() == []
        served = daemons(scene.share)
        assert len(served) == 1
        found = findings(scene)["mounted-elsewhere"]
        assert f"sleep ({pid})" in found["what"]
        assert scene.moorline("repair").stdout == "nothing to repair\n"
        attach_and_write(scene, guest, "beside a container")
        assert has(pid, at), "it is taken from nobody"
        assert len(scene.mount_calls()) == 2
    until(lambda: not daemons(scene.share))
    scene.moorline("repair")
    assert scene.is_clean()


def test_as_a_bind_mount(scene: Scene, guest: Guest) -> None:
    volume = scene.volume()
    scene.attach(guest.name, volume, "--level", "connected")
    bound = scene.directory / "bound"
    bound.mkdir()
    subprocess.run(["mount", "--bind", scene.mount_point(), bound], check=True)
    try:
        scene.detach(guest.name, volume)
        assert [mount.target for mount in scene.mounts()] == [str(bound)]
        assert findings(scene) == {}
        attach_and_write(scene, guest, "beside a bind mount")
        assert (bound / volume.file.name).exists()
    finally:
        umount(bound)
    until(lambda: not daemons(scene.share))
    assert scene.is_clean()


@pytest.mark.parametrize("command", ["attach", "sweep"])
def test_unmounted_by_hand_while_a_namespace_has_it(
    scene: Scene, guest: Guest, command: str
) -> None:
    volume = scene.volume()
    scene.attach(guest.name, volume, "--level", "connected")
    at = scene.mount_point()
    with namespace() as pid:
        umount(at)
        if command == "sweep":
            scene.moorline("sweep")
        scene.attach(guest.name, volume)
        guest.write(volume.id, "mounted anew")
        assert volume.bytes() == pattern("mounted anew")
        assert (len(scene.mounts()), has(pid, at)) == (1, True)
        scene.detach(guest.name, volume)
    until(lambda: not daemons(scene.share))
    scene.moorline("repair")
    assert scene.is_clean()


def test_an_owner_killed_while_it_mounts_beside_an_older_client(scene: Scene, guest: Guest) -> None:
    """The client that lives on hides no command that runs: the mount is made once."""
    volume = scene.volume()
    scene.attach(guest.name, volume, "--level", "connected")
    with namespace():
        umount(scene.mount_point())
        scene.share.command(slow=3)
        owner = scene.moorline.start("attach", guest.name, "--connection", str(volume.connection))
        until(lambda: len(scene.mount_calls()) == 2)
        owner.kill()
        owner.communicate()
        assert scene.mounts() == []
        scene.attach(guest.name, volume)
        assert (len(scene.mounts()), len(scene.mount_calls())) == (1, 2)
        scene.detach(guest.name, volume)
    until(lambda: not daemons(scene.share))
    scene.moorline("repair")
    assert scene.is_clean()
