"""A virtual machine whose clock jumps, and whose network is gone for a while."""

from __future__ import annotations

from lab.machine import servers
from lab.machine.servers import Nfs
from tests.support.real import Real

DAY = 86400


def test_a_clock_that_jumps_changes_nothing(real: Real) -> None:
    nfs, guest = Nfs(real.machine), real.guest("web01")
    volumes = []
    agent = real.run("systemctl show --value -p MainPID moorline-agent").stdout
    for jump in (DAY, -2 * DAY, DAY):
        real.run(f"date -s @$(($(date +%s) + {jump}))")
        volumes.append(real.id())
        servers.disk(real.machine, f"{nfs.directory}/{volumes[-1]}")
        real.attach(guest, nfs.connection(volumes[-1], volumes[-1], "vers=4.2"))
        assert real.rows() == dict.fromkeys(volumes, ("attached", "attached"))
        real.moorline("doctor")
    for volume in volumes:
        real.detach(guest, volume)
    assert real.run("systemctl show --value -p MainPID moorline-agent").stdout == agent


def test_a_network_that_was_gone_is_waited_for(real: Real) -> None:
    nfs, guest, one, two = Nfs(real.machine), real.guest("web01"), real.id(), real.id()
    for volume in (one, two):
        servers.disk(real.machine, f"{nfs.directory}/{volume}")
    real.attach(guest, nfs.connection(one, one, "vers=4.2"))
    real.run("ip link set lo down")
    real.attach(guest, nfs.connection(two, two, "vers=4.2"), None, "--timeout 15")
    assert real.rows()[two][1] != "attached"
    real.moorline("doctor", code=10)
    real.run("ip link set lo up")
    real.await_(lambda: real.rows() == dict.fromkeys((one, two), ("attached", "attached")), 600)
    real.writes(guest, one, 67, f"{nfs.directory}/{one}")
    real.writes(guest, two, 68, f"{nfs.directory}/{two}")
    real.moorline("doctor")
