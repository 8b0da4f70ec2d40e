"""What a running guest has open counts, wherever its paths lead by now."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from scene import Scene, Volume, findings, small_guest

from lab import host
from lab.command import Moorline


@pytest.fixture
def runs(libvirt_conn: Any, leftovers_check: None) -> Iterator[Any]:
    with small_guest(libvirt_conn, "runs", running=True) as domain:
        yield domain


@pytest.fixture
def other(scene: Scene) -> Moorline:
    """Another state directory: nothing in one tells of the other."""
    return Moorline(scene.directory / "other")


def unmounted_lazily(scene: Scene, volume: Volume) -> None:
    subprocess.run(["umount", "--lazy", scene.mount_point()], check=True)


def covered(scene: Scene, volume: Volume) -> None:
    empty = scene.directory / "empty"
    empty.mkdir()
    subprocess.run(["mount", "--bind", empty, scene.mount_point()], check=True)


def replaced(scene: Scene, volume: Volume) -> None:
    """As a relocation by another host, which left a new file behind."""
    moved = volume.file.with_name("moved")
    volume.file.rename(moved)
    volume.file.write_bytes(bytes(2 << 20))
    volume.file.chmod(0o666)
    volume.connection.write_text(
        volume.connection.read_text().replace(volume.file.name, moved.name)
    )


RAW = ("--format", "raw")
LOST: list[Callable[[Scene, Volume], None]] = [unmounted_lazily, covered, replaced]


@pytest.mark.parametrize("lose", LOST)
@pytest.mark.parametrize("running", [True, False])
def test_a_file_of_a_share(
    scene: Scene,
    other: Moorline,
    runs: Any,
    stopped: Any,
    lose: Callable[[Scene, Volume], None],
    running: bool,
) -> None:
    volume = scene.volume()
    scene.attach(runs.name(), volume)
    at = scene.mount_point()
    lose(scene, volume)
    again = ("attach", stopped.name(), "--connection", str(volume.connection), "--timeout", "20")
    if running:
        stopped.createWithFlags(1)
    said = other(*again, code=3).stderr
    assert f"{runs.name()} has" in said
    assert lose is replaced or "open already" in said  # FUSE remembers where a name led to
    assert volume.id not in stopped.XMLDesc(2)
    runs.destroy()
    other(*again)
    if running:
        stopped.destroy()
    other("detach", stopped.name(), volume.id)
    if lose is covered:
        host.umount(at)
    scene.detach(runs.name(), volume)
    assert scene.is_clean()


@pytest.mark.parametrize("how", ["renamed", "bound", "symlink"])
def test_a_file_that_was_plugged_by_hand(scene: Scene, runs: Any, stopped: Any, how: str) -> None:
    real, at = scene.directory / "real", scene.directory / "at"
    real.mkdir()
    disk = real / "disk.raw"
    disk.write_bytes(bytes(1 << 20))
    at.mkdir()
    named = disk
    if how == "bound":
        subprocess.run(["mount", "--bind", real, at], check=True)
        named = at / disk.name
    if how == "symlink":
        (named := at / "disk").symlink_to(disk)
    xml = (
        f"<disk type='file' device='disk'><source file='{named}'/>"
        "<target dev='vdq' bus='virtio'/></disk>"
    )
    runs.attachDeviceFlags(xml, 1)
    free = real / "free.raw"
    free.write_bytes(bytes(1 << 20))
    if how == "renamed":
        disk = disk.rename(real / "renamed.raw")
    elif how == "bound":
        subprocess.run(["umount", "--lazy", at], check=True)
    else:
        named.unlink()
        named.symlink_to(free)
    said = scene.moorline("attach", stopped.name(), str(disk), *RAW, code=3).stderr
    assert f"{runs.name()} has" in said, said
    assert findings(scene) == {}
    scene.moorline("attach", stopped.name(), str(free), *RAW, code=3 if how == "symlink" else 0)
    runs.destroy()
    scene.moorline("attach", stopped.name(), str(disk), *RAW)
    scene.moorline("detach", stopped.name(), str(disk))
    scene.moorline("detach", stopped.name(), str(free), code=None)
