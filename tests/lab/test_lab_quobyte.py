"""The stand-ins for Quobyte's commands."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from libvirt_rig import until

from lab import standin
from lab.quobyte.cluster import Quobyte, QuobyteVolume
from tests.support.missing import missing


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "with space"
    directory.mkdir()
    yield directory
    if standin.mounted(str(directory)):
        standin.umount(str(directory))


def call(*argv: str | Path, timeout: float = 20) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=timeout)


def fields(at: Path) -> list[str]:
    shown = str(at).replace(" ", r"\040")
    table = Path("/proc/self/mountinfo").read_text().splitlines()
    (line,) = (line.split() for line in table if line.split()[4] == shown)
    return line[line.index("-") + 1 :][:2]


def test_mount_shows_the_volume_and_umount_takes_it_away(share: QuobyteVolume, at: Path) -> None:
    share.disk("a.raw", 4096)
    assert call("mount.quobyte", "--disable-xattrs", share.export, at).returncode == 0
    assert fields(at) == ["fuse.quobyte", f"quobyte@reg1/{share.name}"]
    assert [p.name for p in at.iterdir()] == ["a.raw"]
    assert at.stat().st_size == 0
    assert call("umount.quobyte", at).returncode == 0
    assert list(at.iterdir()) == []


def test_old_clients_show_every_registry_and_another_type(share: QuobyteVolume, at: Path) -> None:
    share.command(client="1.x")
    assert call("mount.quobyte", share.export, at).returncode == 0
    assert fields(at) == ["fuse", f"quobyte@reg1|reg2/{share.name}"]


def test_one_known_registry_is_enough(share: QuobyteVolume, at: Path) -> None:
    assert call("mount.quobyte", f"gone:7861,reg2:7861/{share.name}", at).returncode == 0
    assert fields(at)[1] == f"quobyte@gone:7861/{share.name}"


@pytest.mark.parametrize(
    ("device", "text"),
    [
        ("nobody/{}", "could not connect"),
        ("reg1:7862/{}", "could not connect"),
        ("reg1/no-{}", "does not exist"),
        ("reg1/", "does not exist"),
        ("reg1/../volumes/{}", "does not exist"),
    ],
)
def test_what_does_not_exist_is_not_mounted(
    share: QuobyteVolume, at: Path, device: str, text: str
) -> None:
    done = call("mount.quobyte", device.format(share.name), at)
    assert done.returncode == 1
    assert text in done.stderr
    assert not standin.mounted(str(at))


def test_a_second_mount_says_that_it_is_mounted(share: QuobyteVolume, at: Path) -> None:
    call("mount.quobyte", share.export, at)
    done = call("mount.quobyte", share.export, at)
    assert done.returncode == 4
    assert "already mounted" in done.stderr


def test_a_polluted_mount_point_is_refused(share: QuobyteVolume, at: Path) -> None:
    (at / "dirt").touch()
    done = call("mount.quobyte", share.export, at)
    assert done.returncode == 1
    assert "not empty" in done.stderr


def test_a_configuration_that_cannot_be_read_is_refused(share: QuobyteVolume, at: Path) -> None:
    done = call("mount.quobyte", share.export, at, "-c", at / "none.cfg")
    assert done.returncode == 1
    assert "none.cfg" in done.stderr


def test_an_unknown_flag_is_refused(share: QuobyteVolume, at: Path) -> None:
    assert call("mount.quobyte", "--no-such-flag", share.export, at).returncode != 0
    assert not standin.mounted(str(at))


def test_umount_of_nothing_and_of_what_is_busy_fails(share: QuobyteVolume, at: Path) -> None:
    assert call("umount.quobyte", at).returncode == 1
    call("mount.quobyte", share.export, at)
    with (at / "open").open("w"):
        done = call("umount.quobyte", at)
    assert done.returncode == 1
    assert "busy" in done.stderr


def test_slow_hang_and_after(share: QuobyteVolume, at: Path) -> None:
    share.command(slow=0.5)
    start = time.monotonic()
    assert call("mount.quobyte", share.export, at).returncode == 0
    assert time.monotonic() - start >= 0.5
    share.command(umount={"hang": True})
    with hanging(lambda: len(share.cluster.calls()) == 2, "umount.quobyte", at):
        assert standin.mounted(str(at))
    share.command(umount={"hang_after": True})
    with hanging(lambda: not standin.mounted(str(at)), "umount.quobyte", at):
        pass


@contextmanager
def hanging(since: Callable[[], bool], *argv: str | Path) -> Iterator[None]:
    """A command that does not end although *since* is true, which may take a while."""
    process = subprocess.Popen(argv)
    try:
        until(since)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        yield
    finally:
        process.kill()
        process.wait()


def test_failures_and_lies(share: QuobyteVolume, at: Path) -> None:
    share.command(fail={"code": 32, "stderr": "no route to registry"})
    done = call("mount.quobyte", share.export, at)
    assert (done.returncode, done.stderr) == (32, "mount.quobyte: no route to registry\n")
    share.command(lie=True)
    assert call("mount.quobyte", share.export, at).returncode == 0
    assert not standin.mounted(str(at))
    share.command(fail_after={"code": 1})
    assert call("mount.quobyte", share.export, at).returncode == 1
    assert standin.mounted(str(at))


def test_something_else_is_mounted(share: QuobyteVolume, at: Path) -> None:
    share.command(other="tmpfs")
    assert call("mount.quobyte", share.export, at).returncode == 0
    assert fields(at) == ["tmpfs", "none"]
    call("umount.quobyte", at)
    share.command(type="fuse.sshfs", source="someone@else:/")
    assert call("mount.quobyte", share.export, at).returncode == 0
    assert fields(at) == ["fuse.sshfs", "someone@else:/"]


def test_control_of_one_volume_spares_the_others(quobyte: Quobyte, at: Path) -> None:
    good, bad = quobyte.volume("good"), quobyte.volume("bad")
    bad.command(fail={"code": 1})
    assert call("mount.quobyte", bad.export, at).returncode == 1
    assert call("mount.quobyte", good.export, at).returncode == 0


def test_calls_are_noted(quobyte: Quobyte, share: QuobyteVolume, at: Path) -> None:
    call("mount.quobyte", share.export, at)
    call("umount.quobyte", at)
    assert [c["argv"][0] for c in quobyte.calls()] == ["mount.quobyte", "umount.quobyte"]
    assert quobyte.calls()[0]["argv"][1:] == [share.export, str(at)]


def test_an_unprivileged_user_mounts_what_everybody_sees(quobyte: Quobyte, lab: Path) -> None:
    if shutil.which("fusermount3") is None:
        missing("needs fusermount3 (package fuse3)")
    volume = quobyte.volume("users", owner="nobody")
    at = lab / "at-user"
    at.mkdir()
    shutil.chown(at, "nobody")

    def as_nobody(*argv: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            argv,
            check=False,
            capture_output=True,
            text=True,
            user="nobody",
            group="nogroup",
            extra_groups=[],
            cwd="/",
        )

    done = as_nobody("mount.quobyte", "reg1/users", at)
    assert done.returncode == 0, done.stderr
    assert fields(at) == ["fuse.quobyte", "quobyte@reg1/users"]
    assert at.stat().st_size == 0
    as_nobody("touch", at / "file")
    assert (volume.path / "file").owner() == "nobody"
    assert as_nobody("mount.quobyte", "reg1/users", "/mnt").returncode == 1
    assert as_nobody("umount.quobyte", at).returncode == 0
    assert not standin.mounted(str(at))
    at.rmdir()
