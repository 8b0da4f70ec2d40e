"""Files that no guest has open are made larger: real files, and QEMU's own tool."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from moorline.errors import Failed, Refused, Uncertain
from moorline.host.image.growing import grow
from moorline.host.linux import Linux
from moorline.model import BackingFile, CheckedAs, ImageFile
from moorline.ports import Command, Output

MIB = 1 << 20

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img"), reason="qemu-img is not installed")


@pytest.fixture
def host() -> Iterator[Linux]:
    host = Linux(systemd=False)
    yield host
    host.close()


def create(path: Path, form: str, *words: str) -> ImageFile:
    command = ["qemu-img", "create", "-q", "-f", form, *words[:-1], str(path), words[-1]]
    subprocess.run(command, check=True)
    return checked(path, form)


def checked(path: Path, form: str, *backing: BackingFile) -> ImageFile:
    st = path.stat()
    seen = (CheckedAs(path, st.st_dev, st.st_ino),)
    return ImageFile(path, form, backing=backing, checked=seen)  # type: ignore[arg-type]


def size_of(path: Path) -> int:
    told = subprocess.run(
        ["qemu-img", "info", "--output", "json", str(path)], check=True, capture_output=True
    )
    return int(json.loads(told.stdout)["virtual-size"])


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_a_file_grows_and_never_shrinks(host: Linux, tmp_path: Path, form: str) -> None:
    image = create(tmp_path / 'a b{}".img', form, "1M")
    for _ in range(2):
        grow(host.run, image, 3 * MIB)
        assert size_of(image.path) == 3 * MIB
    with pytest.raises(Failed, match="shrink"):
        grow(host.run, image, 2 * MIB)
    assert size_of(image.path) == 3 * MIB


def test_of_a_longer_file_beneath_nothing_comes_to_light(host: Linux, tmp_path: Path) -> None:
    base = create(tmp_path / "base.raw", "raw", "4M")
    base.path.write_bytes(b"old!" * MIB)
    create(tmp_path / "over.qcow2", "qcow2", "-F", "raw", "-b", "base.raw", "1M")
    over = checked(tmp_path / "over.qcow2", "qcow2", BackingFile(base.path, "raw"))
    grow(host.run, over, 3 * MIB)
    flat = tmp_path / "flat.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", str(over.path), str(flat)], check=True)
    assert flat.read_bytes() == b"old!" * (MIB // 4) + bytes(2 * MIB)
    assert base.path.read_bytes() == b"old!" * MIB


@pytest.mark.parametrize("how", ["replaced", "a symlink", "gone", "a directory"])
def test_only_the_file_that_was_checked_is_touched(host: Linux, tmp_path: Path, how: str) -> None:
    image = create(tmp_path / "a.raw", "raw", "1M")
    other = create(tmp_path / "other.raw", "raw", "1M")
    image.path.rename(tmp_path / "was")
    if how == "replaced":
        other.path.rename(image.path)
    elif how == "a symlink":
        image.path.symlink_to(other.path)
    elif how == "a directory":
        image.path.mkdir()
    with pytest.raises(Failed, match=r"a\.raw is not made larger: it"):
        grow(host.run, image, 3 * MIB)
    assert {file.stat().st_size for file in tmp_path.iterdir() if file.is_file()} == {MIB}
    with pytest.raises(Refused, match="not known which"):
        grow(host.run, ImageFile(image.path, "raw"), 3 * MIB)


def test_a_file_that_qemu_has_open_is_left_alone(host: Linux, tmp_path: Path) -> None:
    image = create(tmp_path / "a.qcow2", "qcow2", "1M")
    words = ["qemu-io", "-f", "qcow2", str(image.path)]
    if not shutil.which(words[0]):
        pytest.skip("qemu-io is not installed")
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as user:
        assert user.stdin
        assert user.stdout
        user.stdin.write(b"write 0 512\n")
        user.stdin.flush()
        assert b"wrote" in user.stdout.readline()
        with pytest.raises(Failed, match="lock"):
            grow(host.run, image, 3 * MIB)
        user.stdin.close()
    grow(host.run, image, 3 * MIB)
    assert size_of(image.path) == 3 * MIB


def test_what_does_not_end_may_have_been_done(tmp_path: Path) -> None:
    def hangs(command: Command) -> Output:
        assert command.argv[0] == sys.executable
        raise Uncertain("it did not end")

    with pytest.raises(Uncertain, match="not known whether"):
        grow(hangs, create(tmp_path / "a.raw", "raw", "1M"), 2 * MIB)
