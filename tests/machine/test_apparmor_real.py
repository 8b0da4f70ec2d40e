"""AppArmor, which confines guests where the distribution has it on."""

from __future__ import annotations

from typing import Any

from lab.machine import servers
from lab.machine.servers import Nfs
from tests.support.real import Real

RULES = "/etc/apparmor.d/local/abstractions/libvirt-qemu"
"""What an administrator adds to the profiles of all guests."""


OWN = "own-of-the-test"
OWN_FILE = f"/etc/apparmor.d/{OWN}"
PROFILE = f"""abi <abi/3.0>,
include <tunables/global>
profile {OWN} flags=(attach_disconnected) {{
  include <abstractions/base>
  include <abstractions/libvirt-qemu>
  /run/** rwk,
  /tmp/** rwk,
  /var/lib/libvirt/** rwk,
  /var/log/libvirt/** rw,
}}
"""


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
    for command in ("read -P 0 0 64k", "write -P 65 0 64k", "read -P 65 0 64k"):
        told = real.io(guest, volume, command)
        assert "failed" not in told, told
    real.detach(guest, volume)


def test_what_a_rule_denies_in_so_many_words(real: Real) -> None:
    """The kernel does not log it."""
    nfs, guest, volume = Nfs(real.machine), real.guest("web01"), real.id()
    servers.disk(real.machine, f"{nfs.directory}/{volume}")
    real.run(f"mkdir -p $(dirname {RULES}) && echo 'deny /var/lib/moorline/** rwk,' >{RULES}")
    try:
        told = real.attach(guest, _on_nfs(nfs, volume, "raw"), None, "--timeout 20")
        assert f"AppArmor confines {guest} as libvirt-" in told, told
    finally:
        real.run(f"rm {RULES}")
    real.attach(guest, _on_nfs(nfs, volume, "raw"))
    real.writes(guest, volume, 66, f"{nfs.directory}/{volume}")
    real.detach(guest, volume)


def test_what_a_profile_of_one_s_own_does_not_allow(real: Real) -> None:
    """libvirt adds no rules to it."""
    nfs, volume = Nfs(real.machine), real.id()
    servers.disk(real.machine, f"{nfs.directory}/{volume}")
    _load(real, PROFILE)
    label = f"<seclabel type='static' model='apparmor' relabel='no'><label>{OWN}</label></seclabel>"
    guest = real.guest("own01", label)
    told = real.attach(guest, _on_nfs(nfs, volume, "raw"), None, "--timeout 20")
    assert f"AppArmor denies {guest} /var/lib/moorline/" in told, told + _denied(real)
    rule = next(words for words in told.split("`") if words.endswith(" rwk,"))
    _load(real, PROFILE.replace("}", f"  {rule}\n}}"))
    real.attach(guest, _on_nfs(nfs, volume, "raw"))
    real.writes(guest, volume, 67, f"{nfs.directory}/{volume}")
    real.detach(guest, volume)
    real.run(f"virsh -q destroy {guest} && virsh -q undefine {guest}")


def _load(real: Real, profile: str) -> None:
    real.run(f"cat >{OWN_FILE} <<'END'\n{profile}END\napparmor_parser -r {OWN_FILE}")


def _denied(real: Real) -> str:
    return real.run("dmesg | grep DENIED | tail -5; true").stdout
