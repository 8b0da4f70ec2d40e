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
