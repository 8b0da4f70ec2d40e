"""What the lab's guest is built from."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lab import images

CODE = b"\x7fELF\0license=GPL\0depends=\0"


@pytest.mark.parametrize("below", ["lib/modules", "usr/lib/modules"])
def test_modules_are_found_where_either_debian_has_them(tmp_path: Path, below: str) -> None:
    kernel = tmp_path / below / "6.12/kernel/drivers"
    kernel.mkdir(parents=True)
    (kernel / "virtio_blk.ko").write_bytes(CODE)
    assert images.modules(tmp_path) == {"virtio_blk": CODE}


def test_a_guest_without_any_modules_is_not_built(tmp_path: Path) -> None:
    (tmp_path / "boot").mkdir()
    with pytest.raises(SystemExit, match="no modules"):
        images.modules(tmp_path)


def test_what_apt_says_is_not_taken_for_the_output_of_the_command_that_the_lab_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    tools = {"apt-get": "echo Get:1 a.deb", "apt-cache": "echo '  Depends: linux-image-6.1'"}
    for name, script in tools.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    images.unpack(tmp_path, tmp_path / "root", ["busybox-static"])
    told = capfd.readouterr()
    assert (told.out, told.err) == ("", "Get:1 a.deb\n")
