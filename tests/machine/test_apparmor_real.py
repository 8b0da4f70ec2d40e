"""AppArmor, which confines guests where the distribution has it on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lab.machine import servers
from lab.machine.servers import Nfs
from tests.support.real import Real

RULES = "/etc/apparmor.d/local/abstractions/libvirt-qemu"
"""What an administrator adds to the profiles of all guests."""


OWN = "own01"
UUID = "0b9e0b5c-52d6-4d0a-9a55-3c8f6f0b0001"
OWN_FILE = f"/etc/apparmor.d/libvirt/libvirt-{UUID}"
PROFILE = f"""abi <abi/3.0>,
include <tunables/global>
profile libvirt-{UUID} flags=(attach_disconnected) {{
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
    nfs, guest, volume = Nfs(real.machine), real.guest("web01"), "denied"
    servers.disk(real.machine, f"{nfs.directory}/{volume}")
    with _rule(real, "deny /var/lib/moorline/** rwk,"):
        told = real.attach(guest, _on_nfs(nfs, volume, "raw"), None, "--timeout 20")
        assert f"AppArmor confines {guest} as libvirt-" in told, told
    real.attach(guest, _on_nfs(nfs, volume, "raw"))
    real.writes(guest, volume, 66, f"{nfs.directory}/{volume}")
    real.detach(guest, volume)


def test_what_a_profile_of_one_s_own_does_not_allow(real: Real) -> None:
    """libvirt adds no rules to it."""
    nfs, volume = Nfs(real.machine), "of-own"
    servers.disk(real.machine, f"{nfs.directory}/{volume}")
    real.run(f"cat >{OWN_FILE} <<'END'\n{PROFILE}END\napparmor_parser -r {OWN_FILE}")
    label = "<seclabel type='static' model='apparmor' relabel='no'>"
    label += f"<label>libvirt-{UUID}</label></seclabel>"
    guest = real.guest(OWN, f"<uuid>{UUID}</uuid>{label}")
    told = real.attach(guest, _on_nfs(nfs, volume, "raw"), None, "--timeout 20")
    denied = real.run("dmesg | grep DENIED | tail -5; true").stdout
    assert f"AppArmor denies {guest} /var/lib/moorline/" in told, told + denied
    rule = next(words for words in told.split("`") if words.endswith(" rwk,"))
    with _rule(real, rule):
        real.run(f"apparmor_parser -r {OWN_FILE}")
        real.attach(guest, _on_nfs(nfs, volume, "raw"))
        real.writes(guest, volume, 67, f"{nfs.directory}/{volume}")
        real.detach(guest, volume)
    real.run(f"virsh -q destroy {guest} && virsh -q undefine {guest}")


@contextmanager
def _rule(real: Real, rule: str) -> Iterator[None]:
    """A rule for all guests that start, or are given a disk, meanwhile."""
    real.run(f"echo '{rule}' >>{RULES}")
    try:
        yield
    finally:
        real.run(f"sed -i '$ d' {RULES}")
