"""Whether QEMU's user can read a file as it is: tried as that user."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from moorline.errors import Failed, Refused
from moorline.host.linux import Linux
from moorline.hypervisors.libvirt.file_access import demand_readable, only_read
from moorline.model import BackingFile, BlockDevice, DiskOptions, ImageFile

SOMEBODY = (65534, 65534)

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can try as somebody else")


@pytest.fixture
def linux() -> Iterator[Linux]:
    linux = Linux(look_deadline=5)
    yield linux
    linux.close()


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    # Not pytest's: each pytest that starts shuts what is above that to other users.
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@root_only
@pytest.mark.parametrize(
    ("owner", "mode", "can"),
    [
        ((0, 0), 0o600, False),
        ((0, 0), 0o640, False),
        ((0, 0), 0o604, True),
        (SOMEBODY, 0o400, True),
        (SOMEBODY, 0o000, False),
        ((0, SOMEBODY[1]), 0o640, True),
        ((0, SOMEBODY[1]), 0o604, False),
    ],
)
def test_a_file_is_read_as_its_mode_says(
    linux: Linux, open_to_all: Path, owner: tuple[int, int], mode: int, can: bool
) -> None:
    file = open_to_all / "disk"
    file.touch()
    file.chmod(mode)
    os.chown(file, *owner)
    assert linux.readable(file, *SOMEBODY) is can
    assert linux.size(file) == 0, "and the child is root again"


@root_only
def test_a_directory_that_is_shut_shuts_its_files(linux: Linux, open_to_all: Path) -> None:
    file = open_to_all / "disk"
    file.touch(mode=0o644)
    open_to_all.chmod(0o700)
    assert not linux.readable(file, *SOMEBODY)
    with pytest.raises(Refused, match=f"cannot read {file}"):
        demand_readable(file, SOMEBODY, linux.readable)
    with pytest.raises(Refused, match=f"cannot read {file}, a backing file of /top, and"):
        demand_readable(file, SOMEBODY, linux.readable, image=Path("/top"))


def test_a_file_that_is_gone_is_no_question_of_rights(linux: Linux, open_to_all: Path) -> None:
    with pytest.raises(Failed, match="No such file"):
        demand_readable(open_to_all / "none", SOMEBODY, linux.readable)


def test_what_is_asked_about_is_what_libvirt_leaves_alone() -> None:
    plain = ImageFile(Path("/a"), "qcow2", backing=(BackingFile(Path("/b"), "raw"),))
    assert list(only_read(plain, DiskOptions())) == [Path("/b")]
    assert list(only_read(plain, DiskOptions(readonly=True))) == [Path("/a"), Path("/b")]
    assert list(only_read(BlockDevice(Path("/dev/x")), DiskOptions(readonly=True))) == []
