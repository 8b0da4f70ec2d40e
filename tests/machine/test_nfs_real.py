"""NFS by the kernel's own client and server, on machines with the release's kernel."""

from __future__ import annotations

import pytest

from lab.machine import servers
from lab.machine.servers import Nfs
from tests.support.real import Real


@pytest.mark.parametrize(("options", "seen"), [("vers=3", "3"), ("vers=4.1", "4.1"), ("", "4.2")])
def test_a_guest_s_disk_on_nfs(real: Real, options: str, seen: str) -> None:
    nfs, guest, volume = Nfs(real.machine), real.guest("web01"), real.id()
    file = f"{nfs.directory}/{volume}"
    servers.disk(real.machine, file)
    connection = nfs.connection(volume, volume, options)
    if not options:
        del connection["data"]["options"]
    real.attach(guest, connection)
    mounted = real.run("findmnt -rn -t nfs,nfs4 -o OPTIONS").stdout
    assert f"vers={seen}," in mounted, mounted
    real.writes(guest, volume, 65, file)
    real.run("systemctl restart moorline-agent")
    real.await_(lambda: real.rows() == {volume: ("attached", "attached")})
    real.moorline("doctor")
    real.detach(guest, volume)
    assert real.run("findmnt -rn -t nfs,nfs4; true").stdout == ""


def test_a_server_that_is_gone_is_waited_for(real: Real) -> None:
    """A hard mount, as NFS's are unless told otherwise: nothing fails, everything waits."""
    nfs, guest, other = Nfs(real.machine), real.guest("web01"), real.guest("web02")
    one, two = real.id(), real.id()
    for volume in (one, two):
        servers.disk(real.machine, f"{nfs.directory}/{volume}")
    real.attach(guest, nfs.connection(one, one, "vers=4.2"))
    real.writes(guest, one, 66, f"{nfs.directory}/{one}")
    nfs.stop()

    told = real.attach(other, nfs.connection(two, two, "vers=4.2"), None, "--timeout 15")
    assert real.rows()[two][1] != "attached", told
    assert "does not answer" in told or "did not answer" in told
    doctor = real.moorline("doctor", code=10)
    assert "hung-share" in doctor, doctor
    assert real.rows()[one] in (("attached", "attached"), ("attached", "hung"))

    nfs.start()
    real.await_(lambda: real.rows() == dict.fromkeys((one, two), ("attached", "attached")), 300)
    real.writes(guest, one, 67, f"{nfs.directory}/{one}")
    real.writes(other, two, 68, f"{nfs.directory}/{two}")
    real.moorline("doctor")
