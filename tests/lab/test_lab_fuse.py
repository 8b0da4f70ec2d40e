"""The FUSE daemon that stands in for vendors' mounts."""

from __future__ import annotations

import errno
import json
import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import standin
from lab.quobyte.cluster import replace
from moorline.host.probe.child import size

MIB = 1 << 20


class Mounted:
    def __init__(self, directory: Path) -> None:
        self.backing, self.at = directory / "backing", directory / "at"
        self.control_file = directory / "control.json"
        self.backing.mkdir()
        self.at.mkdir()

    def mount(self, type_: str = "fuse.quobyte", source: str = "quobyte@reg/vol") -> None:
        daemon = [sys.executable, "-S", "-m", "lab.fuse.daemon"]
        command = [*daemon, "--type", type_, "--source", source]
        command += ["--control", str(self.control_file), str(self.backing), str(self.at)]
        # stderr is captured: a daemon that kept it open would hang us here.
        subprocess.run(command, check=True, capture_output=True, timeout=10)

    def control(self, **control: Any) -> None:
        replace(self.control_file, control)

    def line(self) -> list[str]:
        table = Path("/proc/self/mountinfo").read_text().splitlines()
        return next(line.split() for line in table if line.split()[4] == str(self.at))

    def look(self, command: str = "stat") -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [command, str(self.at)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )


@pytest.fixture
def fs(lab: Path, tmp_path: Path) -> Iterator[Mounted]:
    mounted = Mounted(tmp_path)
    yield mounted
    mounted.control()
    if standin.mounted(str(mounted.at)):
        standin.umount(str(mounted.at))


def blocked(process: subprocess.Popen[bytes], seconds: float = 0.5) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return True
    return False


def until(true: Callable[[], bool], deadline: float = 5) -> bool:
    end = time.monotonic() + deadline
    while not true() and time.monotonic() < end:
        time.sleep(0.02)
    return true()


@pytest.mark.parametrize(
    ("type_", "source"),
    [
        ("fuse.quobyte", "quobyte@reg1/vol"),
        ("fuse", "quobyte@192.0.2.3:7866|192.0.2.4:7866/"),
        ("fuse.vstorage", "vstorage://cluster"),
        ("fuse.pstorage", "pstorage://cluster"),
    ],
)
def test_mount_table_shows_the_vendors_type_and_source(
    fs: Mounted, type_: str, source: str
) -> None:
    fs.mount(type_, source)
    line = fs.line()
    assert line[line.index("-") + 1 :][:2] == [type_, source]


def test_the_root_has_size_0_and_the_rest_its_own(fs: Mounted) -> None:
    (fs.backing / "disk").write_bytes(b"x" * 1000)
    (fs.backing / "dir").mkdir()
    fs.mount()
    assert fs.at.stat().st_size == 0
    assert (fs.at / "disk").stat().st_size == 1000
    assert (fs.at / "dir").stat().st_size == (fs.backing / "dir").stat().st_size


def test_data_written_with_o_direct_is_what_is_read_and_what_is_behind(fs: Mounted) -> None:
    fs.mount()
    data = os.urandom(3 * MIB)
    page = mmap.mmap(-1, len(data))  # O_DIRECT wants aligned memory
    page.write(data)
    handle = os.open(fs.at / "disk", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    assert os.pwrite(handle, page, 0) == len(data)
    page.seek(0)
    page.write(b"\0" * len(data))
    assert os.preadv(handle, [page], 0) == len(data)
    os.close(handle)
    assert page[:] == data
    assert (fs.backing / "disk").read_bytes() == data


def test_qemu_writes_and_reads_with_native_aio(fs: Mounted) -> None:
    fs.mount()
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", fs.at / "disk.qcow2", "8M"], check=True
    )
    command = ["qemu-io", "-t", "none", "-i", "native", "-f", "qcow2", fs.at / "disk.qcow2"]
    for action in ("write -P 7 0 3M", "flush", "read -P 7 64k 2M", "read -P 0 3M 1M"):
        command += ["-c", action]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)
    assert "failed" not in done.stdout + done.stderr


def test_names_and_attributes(fs: Mounted) -> None:
    fs.mount()
    (fs.at / "dir").mkdir(mode=0o750)
    file = fs.at / "file"
    file.write_text("hello")
    file.rename(fs.at / "dir" / "moved")
    moved = fs.at / "dir" / "moved"
    moved.chmod(0o640)
    os.chown(moved, 1234, 4321)
    os.utime(moved, ns=(1_500_000_000_000_000_007, 1_600_000_000_000_000_009))
    (fs.at / "link").symlink_to("dir/moved")
    (fs.at / "hard").hardlink_to(moved)
    os.truncate(fs.at / "hard", 4)
    behind = (fs.backing / "dir" / "moved").stat()
    assert (fs.at / "link").read_text() == "hell"
    with os.scandir(fs.at) as entries:
        listed = {e.name: (e.inode(), e.is_symlink(), e.is_dir()) for e in entries}
    assert sorted(listed) == ["dir", "hard", "link"]
    assert listed["hard"] == (moved.stat().st_ino, False, False)
    assert listed["link"] == ((fs.at / "link").lstat().st_ino, True, False)
    assert listed["dir"] == ((fs.at / "dir").stat().st_ino, False, True)
    assert (behind.st_mode & 0o7777, behind.st_uid, behind.st_gid) == (0o640, 1234, 4321)
    os.utime(moved, ns=(1_500_000_000_000_000_007, 1_600_000_000_000_000_009))
    assert moved.stat().st_mtime_ns == 1_600_000_000_000_000_009
    with pytest.raises(OSError, match="not empty"):
        (fs.at / "dir").rmdir()
    moved.unlink()
    (fs.at / "dir").rmdir()
    assert sorted(p.name for p in fs.backing.iterdir()) == ["hard", "link"]


def test_a_file_that_is_open_outlives_its_name(fs: Mounted) -> None:
    fs.mount()
    with (fs.at / "file").open("w+b") as file:
        (fs.at / "file").unlink()
        file.write(b"still here")
        file.flush()
        assert os.fstat(file.fileno()).st_size == 10


def test_a_hang_blocks_who_looks_until_it_ends(fs: Mounted) -> None:
    fs.mount()
    fs.control(hang=True)
    drift = fs.look()
    assert blocked(drift)
    fs.control()
    assert drift.wait(5) == 0


def test_who_waits_for_a_hung_mount_can_be_killed(fs: Mounted) -> None:
    fs.mount()
    fs.control(hang=True)
    drift = fs.look()
    assert blocked(drift)
    drift.kill()
    assert drift.wait(5) == -signal.SIGKILL


def test_a_hang_of_one_request_lets_others_pass(fs: Mounted) -> None:
    (fs.backing / "file").write_text("content")
    fs.mount()
    fs.control(hang=["readdir"])
    lister = fs.look("ls")
    assert blocked(lister)
    assert (fs.at / "file").read_text() == "content"
    lister.kill()
    assert lister.wait(5) == -signal.SIGKILL


def test_a_deaf_daemon_leaves_what_waits_unkillable(fs: Mounted) -> None:
    fs.mount()
    fs.control(hang=["readdir"], deaf=True)
    lister = fs.look("ls")
    assert blocked(lister)
    lister.kill()
    assert blocked(lister)
    fs.control()
    assert lister.wait(5) == -signal.SIGKILL


def test_delay(fs: Mounted) -> None:
    fs.mount()
    fs.control(delay=0.3)
    start = time.monotonic()
    fs.at.stat()
    assert time.monotonic() - start >= 0.3


def test_errors_are_the_ones_asked_for(fs: Mounted) -> None:
    fs.mount()
    (fs.at / "file").write_text("before")
    fs.control(error={"write": "ENOSPC", "read": "EIO"})
    with pytest.raises(OSError, match="No space left"):
        (fs.at / "file").write_text("after")
    fs.control(error={"*": "EACCES"})
    with pytest.raises(PermissionError):
        fs.at.stat()


def test_what_is_not_written_back_is_read_and_goes_with_the_daemon(fs: Mounted) -> None:
    fs.control(backs=True)
    fs.mount()
    (fs.backing / "file").write_bytes(b"before..")
    file = os.open(fs.at / "file", os.O_RDWR)
    os.write(file, b"synced")
    with (fs.at / "file").open("rb") as reader:
        assert reader.read() == b"synced.."
        assert (fs.backing / "file").read_bytes() == b"before.."
    os.fsync(file)
    assert (fs.backing / "file").read_bytes() == b"synced.."
    os.write(file, b"!!")
    fs.control(die=True)
    assert until(lambda: _is_dead(fs.at))
    with pytest.raises(OSError, match="not connected"):
        os.close(file)
    assert (fs.backing / "file").read_bytes() == b"synced.."


def _is_dead(at: Path) -> bool:
    try:
        at.stat()
    except OSError as e:
        return e.errno == errno.ENOTCONN
    return False


def test_a_daemon_that_dies_leaves_a_mount_that_is_not_connected(fs: Mounted) -> None:
    fs.mount()
    fs.control(die=True)
    assert until(lambda: _is_dead(fs.at))
    assert fs.line()
    standin.umount(str(fs.at))
    assert not standin.mounted(str(fs.at))


def test_unmounting_is_refused_while_a_file_is_open(fs: Mounted) -> None:
    fs.mount()
    with (fs.at / "file").open("w"), pytest.raises(OSError, match="busy"):
        standin.umount(str(fs.at))


def test_a_mount_that_cannot_be_made_is_told(fs: Mounted) -> None:
    fs.at.rmdir()
    with pytest.raises(subprocess.CalledProcessError) as told:
        fs.mount()
    assert b"No such file" in told.value.stderr
    fs.at.mkdir()


def test_the_control_file_survives_nonsense_of_its_writer(fs: Mounted) -> None:
    """The daemon reads whole files only: a file replaced a hundred times is always one of them."""
    fs.mount()
    for number in range(100):
        fs.control(error={"statfs": ("EIO", "EPERM")[number % 2]}, filler="x" * number * 100)
        with pytest.raises(OSError) as seen:
            os.statvfs(fs.at)
        assert seen.value.errno == (errno.EIO, errno.EPERM)[number % 2]
    assert json.loads(fs.control_file.read_text())["error"]


@pytest.mark.parametrize("seconds", [0, 60])
def test_a_size_is_asked_of_what_another_client_put_there(fs: Mounted, seconds: int) -> None:
    """By what the kernel remembers, a guest's disk would be the file that it has open for long."""
    fs.control(remember=seconds)
    fs.mount()
    disk, new = fs.backing / "disk", fs.backing / "new"
    disk.write_bytes(bytes(MIB))
    new.write_bytes(bytes(2 * MIB))
    with (fs.at / "disk").open("rb") as file:
        new.rename(disk)
        named = Path(f"/proc/self/fd/{file.fileno()}")
        assert (fs.at / "disk").stat().st_size == (MIB if seconds else 2 * MIB)
        assert size(str(fs.at / "disk"), "raw") == {"size": 2 * MIB}
        assert str(named.readlink()) == f"{fs.at}/disk (deleted)"
        disk.unlink()
        with pytest.raises(FileNotFoundError):
            size(str(fs.at / "disk"), "raw")
        assert not disk.exists()
