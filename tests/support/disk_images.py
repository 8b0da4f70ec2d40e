"""Images made by the real qemu-img, and the check that they are put to."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from moorline.errors import Refused
from moorline.host.image.check import check_image
from tests.support.missing import missing

if shutil.which("qemu-img") is None:
    missing("needs qemu-img")


@pytest.fixture
def share(tmp_path: Path) -> Path:
    directory = tmp_path / "share"
    (directory / "sub").mkdir(parents=True)
    return directory


def make(share: Path, name: str, format: str, *options: str, size: str | None = "1M") -> Path:
    argv = ["qemu-img", "create", "-q", "-f", format, *options, name, *([size] if size else [])]
    subprocess.run(argv, cwd=share, check=True)
    return share / name


def overlay(share: Path, name: str, backing: str, format: str = "qcow2") -> Path:
    """An overlay of *backing* as its header says it, whatever is there."""
    return make(share, name, "qcow2", "-u", "-b", backing, "-F", format)


def check(share: Path, name: str, format: str = "raw") -> None:
    check_image(str(share), name, format)


def refused(share: Path, name: str, format: str = "raw") -> str:
    with pytest.raises(Refused) as refusal:
        check(share, name, format)
    return str(refusal.value)
