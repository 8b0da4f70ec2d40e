"""NVMe over TCP by os-brick's own connector, nvme-cli, and the kernel's host and target."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.machine import servers
from lab.machine.servers import Nvme
from tests.support.real import Real

UUID = "{:08x}-1111-4222-8333-444444444444"


@pytest.fixture
def nvme(real: Real) -> Iterator[Nvme]:
    """A subsystem whose namespace 1 is 64 MiB."""
    nvme = Nvme(real.machine)
    servers.disk(real.machine, "/srv/namespace1")
    nvme.add(1, "/srv/namespace1", UUID.format(1))
    yield nvme
    real.run(f"nvme disconnect -n {nvme.nqn}", code=None)
    nvme.remove(1)


def test_a_guest_s_disk_by_nvme_over_tcp(real: Real, nvme: Nvme) -> None:
    guest, volume = real.guest("web01"), real.id()
    real.attach(guest, nvme.connection(UUID.format(1), volume))
    assert nvme.nqn in real.run("nvme list-subsys").stdout
    real.writes(guest, volume, 71, "/srv/namespace1")
    assert real.rows() == {volume: ("attached", "attached")}
    real.moorline("doctor")
    real.detach(guest, volume)
    assert nvme.nqn not in real.run("nvme list-subsys").stdout


def test_another_namespace_than_the_connection_names_is_refused(real: Real, nvme: Nvme) -> None:
    guest, volume = real.guest("web01"), real.id()
    nvme.remove(1)
    nvme.add(1, "/srv/namespace1", UUID.format(2))
    told = real.attach(guest, nvme.connection(UUID.format(1), volume), None, "--timeout 30")
    assert real.rows()[volume][1] != "attached", told
    assert "sda" not in real.run(f"virsh domblklist {guest}").stdout, told
