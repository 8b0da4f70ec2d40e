"""What QEMU could not open is refused before a guest is given it, running or stopped."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from libvirt_rig import until
from scene import Scene, halves, start_paused

from lab.guest import Guest

AT_ONCE = ("--timeout", "3600")
"""Who tried again would do so until the test is given up."""


@pytest.fixture
def files(lab: Path, leftovers_check: None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=lab, prefix="files-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def image(path: Path, form: str = "raw") -> Path:
    subprocess.run(["qemu-img", "create", "-qf", form, path, "1M"], check=True)
    path.chmod(0o666)
    return path


@contextmanager
def read_only(directory: Path) -> Iterator[None]:
    subprocess.run(["mount", "--bind", directory, directory], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", directory], check=True)
        yield
    finally:
        subprocess.run(["umount", directory], check=True)


@contextmanager
def opened(path: Path, *how: str) -> Iterator[int]:
    """Another process has it open as QEMU does."""
    process = subprocess.Popen(["qemu-io", *how, path], stdin=subprocess.PIPE, text=True)
    try:
        until(lambda: f" {path.stat().st_ino} " in locks())
        yield process.pid
    finally:
        process.communicate("quit\n")


def locks() -> str:
    return Path("/proc/locks").read_text().replace(":", " ")


def refused(scene: Scene, guest: str, path: Path, *args: str) -> str:
    form = ("--format", "qcow2" if path.suffix == ".qcow2" else "raw")
    said = scene.moorline("attach", guest, str(path), *form, *args, *AT_ONCE, code=3).stderr
    scene.moorline("attach", guest, str(path), *form, *args, *AT_ONCE, "--dry-run", code=3)
    assert scene.attachments() == {}
    return said


def test_a_file_system_that_is_mounted_read_only(scene: Scene, stopped: Any, files: Path) -> None:
    path = image(files / "disk.raw")
    with read_only(files):
        said = refused(scene, stopped.name(), path)
        assert "mounted read-only" in said
        assert "--read-only" in said
        assert f"{path}" not in stopped.XMLDesc(2)
        scene.moorline("attach", stopped.name(), str(path), "--format", "raw", "--read-only")
        start_paused(stopped)  # and so it starts
        stopped.destroy()
        scene.moorline("detach", stopped.name(), str(path))


def test_an_image_that_another_process_has_open(
    scene: Scene, stopped: Any, guest: Guest, files: Path
) -> None:
    for path in (image(files / "disk.raw"), image(files / "disk.qcow2", "qcow2")):
        with opened(path, "-f", path.suffix[1:]) as pid:
            for name in (stopped.name(), guest.name):
                said = refused(scene, name, path)
                assert f"has locked {path}" in said
                assert f"qemu-io ({pid})" in said
        form = ("--format", path.suffix[1:])
        scene.moorline("attach", stopped.name(), str(path), *form)
        scene.moorline("detach", stopped.name(), str(path))


def test_who_only_reads_is_no_obstacle_to_who_only_reads(
    scene: Scene, stopped: Any, files: Path
) -> None:
    path = image(files / "disk.raw")
    with opened(path, "-f", "raw"):
        refused(scene, stopped.name(), path, "--read-only")
    with opened(path, "-r", "-f", "raw"):
        scene.moorline("attach", stopped.name(), str(path), "--format", "raw", "--read-only")
    scene.moorline("detach", stopped.name(), str(path))


def test_half_a_disk_is_healed_though_its_own_guest_has_it_locked(
    scene: Scene, guest: Guest
) -> None:
    volume = scene.volume()
    scene.attach(guest.name, volume)
    guest.domain.detachDeviceAlias(f"ua-{volume.id}", 2)
    until(lambda: halves(guest.domain, volume) == (True, False))
    scene.attach(guest.name, volume)
    assert halves(guest.domain, volume) == (True, True)
    scene.detach(guest.name, volume)
    assert scene.is_clean()


@pytest.mark.parametrize("size", [(1 << 20) + 1, (1 << 20) + 512])
def test_an_image_whose_last_block_does_not_fit(
    scene: Scene, stopped: Any, guest: Guest, size: int
) -> None:
    volume = scene.volume()
    os.truncate(volume.file, size)
    volume.file.chmod(0o644)  # for who only reads
    for name in (stopped.name(), guest.name):
        said = scene.attach(name, volume, *AT_ONCE, code=3).stderr
        assert f"has {size} bytes" in said
        assert "truncate --size=%4096" in said
        assert scene.is_clean()
    scene.attach(guest.name, volume, "--read-only")  # nothing is written there
    scene.detach(guest.name, volume)
    os.truncate(volume.file, -(-size // 4096) * 4096)
    scene.attach(guest.name, volume)
    scene.detach(guest.name, volume)
    assert scene.is_clean()


def test_a_file_s_size_is_free_where_the_page_cache_is_between(
    scene: Scene, guest: Guest, files: Path
) -> None:
    path = image(files / "disk.raw")
    os.truncate(path, (1 << 20) + 1)
    scene.moorline("attach", guest.name, str(path), "--format", "raw")
    scene.moorline("detach", guest.name, str(path))
