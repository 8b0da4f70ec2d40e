"""What the host itself uses is no guest's disk: real loop devices, mounts and bind mounts."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import loops
from moorline.backends.local import LocalFile
from moorline.backends.osbrick.protocols import Local
from moorline.errors import Refused
from moorline.host.linux import Linux
from moorline.ports import StorageBackend


@pytest.fixture
def host(lab: Path) -> Iterator[Linux]:
    linux = Linux(look_deadline=5)
    yield linux
    linux.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = Path(os.path.realpath(tmp_path)) / "disk.raw"
    with path.open("wb") as opened:
        opened.truncate(8 << 20)
    subprocess.run(["mkfs.ext2", "-q", path], check=True)
    return path


@pytest.fixture
def loop(file: Path) -> Iterator[Path]:
    number = loops.attach(file)
    node = Path(f"/dev/loop{number}")
    if not node.exists():
        loops.node(node, number)
    yield node
    loops.detach(number)


def verify(backend: StorageBackend[Any], **data: str) -> None:
    kind = {"driver_volume_type": backend.kind, "data": data}
    backend.verify(backend.parse(kind))


def test_a_mounted_device_is_refused_until_it_is_unmounted(
    host: Linux, loop: Path, tmp_path: Path
) -> None:
    local, brick = LocalFile(host, state_dir=tmp_path / "state"), Local(host, tmp_path / "locks")
    at = tmp_path / "mounted"
    at.mkdir()
    subprocess.run(["mount", loop, at], check=True)
    try:
        with pytest.raises(Refused, match=f"in use by this host: mounted at {at}"):
            verify(local, path=str(loop), format="raw")
        with pytest.raises(Refused, match=f"in use by this host: mounted at {at}"):
            verify(brick, device_path=str(loop))
    finally:
        subprocess.run(["umount", at], check=True)
    verify(local, path=str(loop), format="raw")
    verify(brick, device_path=str(loop))


def test_a_file_that_is_a_loop_device_is_refused(host: Linux, file: Path, tmp_path: Path) -> None:
    local = LocalFile(host, state_dir=tmp_path / "state")
    verify(local, path=str(file), format="raw")
    number = loops.attach(file)
    try:
        with pytest.raises(Refused, match=f"loop device /dev/loop{number}"):
            verify(local, path=str(file), format="raw")
    finally:
        loops.detach(number)
    verify(local, path=str(file), format="raw")


@pytest.mark.parametrize("whose", ["state", "another"])
@pytest.mark.parametrize("deep", ["", "deep", "deep/deeper"])
def test_a_state_is_known_where_a_part_of_it_is_mounted_elsewhere(
    host: Linux, tmp_path: Path, deep: str, whose: str
) -> None:
    state, elsewhere = tmp_path / whose, tmp_path / "elsewhere"
    (state / "deep/deeper").mkdir(parents=True)
    (state / "moorline.db").touch()
    local = LocalFile(host, state_dir=tmp_path / "state")
    (state / deep / "a.raw").write_bytes(bytes(4096))
    elsewhere.mkdir()
    subprocess.run(["mount", "--bind", state / deep, elsewhere], check=True)
    try:
        with pytest.raises(Refused, match="Moorline's own state"):
            verify(local, path=f"{elsewhere}/a.raw", format="raw")
        (state / "moorline.db").unlink()
        if whose == "another":
            verify(local, path=f"{elsewhere}/a.raw", format="raw")
    finally:
        subprocess.run(["umount", elsewhere], check=True)
