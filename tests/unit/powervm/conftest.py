"""A NovaLink stand-in, the driver in front of it, and a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.novalink import NovaLink as Lab
from lab.novalink.rig import image, powervm
from moorline.hypervisors.powervm.hypervisor import PowerVM
from moorline.model import ImageFile


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.fixture
def vm(lab: Lab) -> Iterator[PowerVM]:
    vm = powervm(lab)
    yield vm
    vm.close()


@pytest.fixture
def disk(tmp_path: Path) -> ImageFile:
    return ImageFile(image(tmp_path, "volume-1"), "raw")
