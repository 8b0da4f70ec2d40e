"""AppArmor, which confines guests where the distribution has it on."""

from __future__ import annotations

from typing import Any

from lab.machine import servers
from lab.machine.servers import Nfs
from tests.support.real import Real

RULES = "/etc/apparmor.d/local/abstractions/libvirt-qemu"
"""What an administrator adds to the profiles of all guests."""


def _on_nfs(nfs: Nfs, volume: str, format: str) -> dict[str, Any]:
    connection = nfs.connection(volume, volume, "vers=4.2")
    connection["data"]["format"] = format
    return connection


def _confined(real: Real, guest: str) -> bool:
    return "model='apparmor'" in real.run(f"virsh dumpxml {guest}").stdout


def test_a_volume_whose_base_lies_beside_it(real: Real) -> None:
    nfs, guest, volume = Nfs(real.machine), real.guest("web01"), real.id()
    base = f"base-{volume}"
    real.run(
        f"cd {nfs.directory} && qemu-img create -q -f qcow2 {base} 64M"
        f" && qemu-img create -q -f qcow2 -b {base} -F qcow2 {volume}"
        f" && chmod 666 {base} {volume}"
    )
    assert _confined(real, guest)
    real.attach(guest, _on_nfs(nfs, volume, "qcow2"))
    real.writes(guest, volume, 65, f"{nfs.directory}/{volume}")
    real.detach(guest, volume)


def test_a_denial_is_told_as_that(real: Real) -> None:
    nfs, guest, volume = Nfs(real.machine), real.guest("web01"), real.id()
    servers.disk(real.machine, f"{nfs.directory}/{volume}")
    real.run(f"mkdir -p $(dirname {RULES}) && echo 'deny /var/lib/moorline/** rwk,' >{RULES}")
    try:
        told = real.attach(guest, _on_nfs(nfs, volume, "raw"), None, "--timeout 20")
        assert "AppArmor" in told, told + real.run("dmesg | grep DENIED | tail -5").stdout
        assert f"{volume}" in told, told
    finally:
        real.run(f"rm {RULES}")
    real.attach(guest, _on_nfs(nfs, volume, "raw"))
    real.writes(guest, volume, 66, f"{nfs.directory}/{volume}")
    real.detach(guest, volume)
