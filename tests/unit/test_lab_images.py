"""What the lab's guest is built from."""

from __future__ import annotations

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
