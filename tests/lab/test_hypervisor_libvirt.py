"""Libvirt against the hypervisor contract: real libvirtd, real QEMU, guests that really let go."""

from __future__ import annotations

import pytest
from libvirt_rig import LibvirtRig

from moorline.testing.contracts.extending import ExtendingContract


class TestLibvirt(ExtendingContract):
    @pytest.fixture
    def rig(self, libvirt_rig: LibvirtRig) -> LibvirtRig:
        return libvirt_rig
