"""iSCSI by os-brick's own connector: open-iscsi and the kernel's target (LIO)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.machine import servers
from lab.machine.servers import Iscsi
from tests.support.real import Real

SERIAL = "{:0<32x}"
"""LIO makes the identity of the first 25 digits."""


@pytest.fixture
def iscsi(real: Real) -> Iterator[Iscsi]:
    """A target whose LUN 1 is 64 MiB."""
    iscsi = Iscsi(real.machine)
    servers.disk(real.machine, "/srv/lun1")
    iscsi.add(1, "/srv/lun1", SERIAL.format(1))
    yield iscsi
    real.run("iscsiadm -m node --logout; iscsiadm -m node -o delete", code=None)
    iscsi.remove(1)


def sessions(real: Real) -> int:
    return len(real.run("iscsiadm -m session 2>/dev/null; true").stdout.splitlines())


def test_a_guest_s_disk_by_iscsi_with_chap(real: Real, iscsi: Iscsi) -> None:
    guest, volume = real.guest("web01"), real.id()
    real.attach(guest, iscsi.connection(1, volume))
    assert sessions(real) == 1
    real.writes(guest, volume, 65, "/srv/lun1")
    real.run("systemctl restart moorline-agent")
    real.await_(lambda: real.rows() == {volume: ("attached", "attached")})
    real.moorline("doctor")
    real.detach(guest, volume)
    assert sessions(real) == 0
