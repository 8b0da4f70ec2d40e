"""The name that a host's records go by: remembered whole, or not at all."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from moorline import config
from moorline.errors import Unavailable
from tests.support.full_disk import full_disk


def settings(directory: Path, host: str = "") -> config.Settings:
    return config.Settings(directory, host, "", {})


def test_it_is_what_was_set_else_what_is_remembered(tmp_path: Path) -> None:
    assert config.host_name(settings(tmp_path, "set")) == "set"
    assert list(tmp_path.iterdir()) == []
    assert config.host_name(settings(tmp_path)) == socket.gethostname()
    (tmp_path / "host").write_text("before it was renamed\n")
    assert config.host_name(settings(tmp_path)) == "before it was renamed"


def test_an_empty_file_is_no_name(tmp_path: Path) -> None:
    (tmp_path / "host").touch()  # as a power cut leaves what was not synced
    assert config.host_name(settings(tmp_path)) == socket.gethostname()
    assert (tmp_path / "host").read_text() == f"{socket.gethostname()}\n"


def test_on_a_full_disk_no_half_name_is_left(tmp_path: Path) -> None:
    with full_disk(), pytest.raises(Unavailable, match="host cannot be"):
        config.host_name(settings(tmp_path))
    assert list(tmp_path.iterdir()) == []
