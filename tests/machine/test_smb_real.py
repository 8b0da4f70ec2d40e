"""SMB by the kernel's own client, and Samba."""

from __future__ import annotations

from lab.machine import servers
from lab.machine.servers import Smb
from tests.support.real import Real

OPTIONS = "uid=libvirt-qemu,file_mode=0600,dir_mode=0711"
"""A mount of CIFS has the owner that it is told."""


def test_a_guest_s_disk_on_smb(real: Real) -> None:
    smb, guest, volume = Smb(real.machine), real.guest("web01"), real.id()
    file = f"{smb.directory}/{volume}"
    servers.disk(real.machine, file)
    real.attach(guest, smb.connection(volume, volume, OPTIONS))
    assert real.run("findmnt -rn -t cifs,smb3 -o FSTYPE").stdout.strip() in ("cifs", "smb3")
    assert (
        smb.password
        not in real.run("cat /proc/mounts; find /var/lib/moorline -name '*.cred*'").stdout
    )
    real.writes(guest, volume, 72, file)
    assert real.rows() == {volume: ("attached", "attached")}
    real.moorline("doctor")
    real.detach(guest, volume)
    assert real.run("findmnt -rn -t cifs,smb3; true").stdout == ""
