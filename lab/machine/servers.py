"""Real storage servers on a virtual machine, each of them for the machine's own clients."""

from __future__ import annotations

import json
from typing import Any

from lab.machine.virtual import Virtual

PORTALS = ("127.0.0.1", "127.0.0.2")
"""Two ways to one target; loopback answers to all of 127.0.0.0/8."""
_EXPORT = """
mkdir -p /srv/nfs /etc/nfs.conf.d
# Else a server that comes back takes no opens for 90 s.
printf '[nfsd]\\ngrace-time=10\\nlease-time=10\\n' >/etc/nfs.conf.d/lab.conf
echo '/srv/nfs 127.0.0.0/8(rw,no_root_squash,fsid=1,insecure)' >/etc/exports
systemctl start nfs-server
"""
_SHARE = """
mkdir -p /srv/smb
cat >/etc/samba/smb.conf <<END
[global]
server min protocol = SMB2
load printers = no
[vols]
path = /srv/smb
read only = no
END
id smbuser >/dev/null 2>&1 || useradd smbuser
printf '%s\\n%s\\n' {password} {password} | smbpasswd -s -a smbuser
chown smbuser /srv/smb
systemctl restart smbd
"""
_CONFIG = "/sys/kernel/config"


_WARM = "/opt/moorline/bin/python -c 'import moorline.backends.osbrick.child'"
"""Reads os-brick from the disk once: emulated, on a busy machine, it takes longer than the minute
that Moorline waits for the process which imports it."""


def disk(machine: Virtual, path: str, size: str = "64M") -> None:
    """An empty disk image, or what a LUN is made of."""
    machine.run(f"mkdir -p $(dirname {path}) && truncate -s {size} {path} && chmod 666 {path}")


class Nfs:
    """The kernel's NFS server: ``127.0.0.1:/srv/nfs``."""

    directory = "/srv/nfs"

    def __init__(self, machine: Virtual) -> None:
        self._run = machine.run
        self._run(_EXPORT)

    def connection(self, file: str, volume: str, options: str) -> dict[str, Any]:
        """As Cinder's driver makes it."""
        data = {"export": f"127.0.0.1:{self.directory}", "name": file, "format": "raw"}
        return _connection("nfs", volume, {**data, "options": f"-o {options}"})

    def stop(self) -> None:
        self._run("systemctl stop nfs-server")

    def start(self) -> None:
        self._run("systemctl start nfs-server")


class Smb:
    """Samba: ``//127.0.0.1/vols``, of one user."""

    directory = "/srv/smb"
    password = "gate-12-Open"

    def __init__(self, machine: Virtual) -> None:
        self._run = machine.run
        self._run(_SHARE.format(password=self.password))

    def connection(self, file: str, volume: str, options: str) -> dict[str, Any]:
        secret = f"-o username=smbuser,password={self.password},{options}"
        data = {"export": "//127.0.0.1/vols", "name": file, "format": "raw", "options": secret}
        return _connection("smbfs", volume, data)


class Iscsi:
    """The kernel's iSCSI target (LIO): one target with CHAP, which has a portal for each path."""

    iqn = "iqn.2026-01.lab.moorline:target"
    user, password = "moor", "twelve-chars-xx"
    _tpg = f"{_CONFIG}/target/iscsi/{iqn}/tpgt_1"

    def __init__(self, machine: Virtual) -> None:
        self._run = machine.run
        self._run(self.setup)
        self._run("systemctl start iscsid")
        self._run(_WARM, deadline=600)

    @property
    def setup(self) -> str:
        """The commands that make the target, without LUNs; as often as one likes."""
        portals = "\n".join(f"mkdir -p {self._tpg}/np/{ip}:3260" for ip in PORTALS)
        return f"""
modprobe iscsi_target_mod
modprobe target_core_file
mkdir -p {self._tpg}
{portals}
echo 1 >{self._tpg}/attrib/authentication
echo 1 >{self._tpg}/attrib/generate_node_acls
echo 0 >{self._tpg}/attrib/demo_mode_write_protect
echo 1 >{self._tpg}/attrib/cache_dynamic_acls
echo -n {self.user} >{self._tpg}/auth/userid
echo -n {self.password} >{self._tpg}/auth/password
grep -qx 1 {self._tpg}/enable || echo 1 >{self._tpg}/enable
"""

    def add(self, lun: int, path: str, serial: str) -> None:
        """Show the file at *path* as LUN *lun*; *serial*, 32 digits, is its identity."""
        self._run(self.adding(lun, path, serial))

    def adding(self, lun: int, path: str, serial: str) -> str:
        """The commands of ``add``."""
        core = f"{_CONFIG}/target/core/fileio_0/lun{lun}"
        return f"""
mkdir -p {core}
echo fd_dev_name={path},fd_dev_size=$(stat -c %s {path}) >{core}/control
echo 1 >{core}/enable
echo {serial} >{core}/wwn/vpd_unit_serial
mkdir -p {self._tpg}/lun/lun_{lun}
ln -s {core} {self._tpg}/lun/lun_{lun}/it
"""

    def remove(self, lun: int) -> None:
        core = f"{_CONFIG}/target/core/fileio_0/lun{lun}"
        at = f"{self._tpg}/lun/lun_{lun}"
        self._run(f"rm {at}/it; rmdir {at} {core}")

    def cut(self, portal: str) -> None:
        """Let nothing through from and to *portal*, as a cable that is pulled out."""
        self.mend(portal)
        self._run(_path(portal, "-I"))

    def mend(self, portal: str) -> None:
        self._run(_path(portal, "-D"), code=None)

    def sessions(self) -> int:
        return len(self._run("iscsiadm -m session 2>/dev/null; true").stdout.splitlines())

    def connection(self, lun: int, volume: str, *, paths: int = 1) -> dict[str, Any]:
        data: dict[str, Any] = {
            "target_portal": f"{PORTALS[0]}:3260",
            "target_iqn": self.iqn,
            "target_lun": lun,
            "auth_method": "CHAP",
            "auth_username": self.user,
            "auth_password": self.password,
            "target_discovered": False,
        }
        if paths > 1:
            data["target_portals"] = [f"{ip}:3260" for ip in PORTALS[:paths]]
            data["target_iqns"] = [self.iqn] * paths
            data["target_luns"] = [lun] * paths
        return _connection("iscsi", volume, data)


def _path(portal: str, verb: str) -> str:
    rules = (f"OUTPUT -d {portal} -p tcp --dport 3260", f"OUTPUT -s {portal} -p tcp --sport 3260")
    return "; ".join(f"iptables {verb} {rule} -j DROP" for rule in rules)


class Nvme:
    """The kernel's NVMe over TCP target: a subsystem with one namespace."""

    nqn = "nqn.2026-01.lab.moorline:subsystem"
    _at = f"{_CONFIG}/nvmet/subsystems/{nqn}"

    def __init__(self, machine: Virtual) -> None:
        self._run = machine.run
        ports = "\n".join(
            f"mkdir {_CONFIG}/nvmet/ports/{n}; cd {_CONFIG}/nvmet/ports/{n}; "
            f"echo tcp >addr_trtype; echo ipv4 >addr_adrfam; echo {ip} >addr_traddr; "
            f"echo 4420 >addr_trsvcid; ln -s {self._at} subsystems/it"
            for n, ip in enumerate(PORTALS, 1)
        )
        self._run(_WARM, deadline=600)
        self._run(f"""
modprobe -a nvmet_tcp nvme_tcp
[ ! -d {self._at} ] || exit 0
mkdir {self._at}
echo 1 >{self._at}/attr_allow_any_host
{ports}
""")

    def add(self, id: int, path: str, uuid: str) -> None:
        """Show the file at *path* as namespace *id*, whose identity is *uuid*."""
        at = f"{self._at}/namespaces/{id}"
        self._run(f"""
mkdir -p {at}
echo -n {path} >{at}/device_path
echo {uuid} >{at}/device_uuid
echo 1 >{at}/enable
""")

    def remove(self, id: int) -> None:
        at = f"{self._at}/namespaces/{id}"
        self._run(f"echo 0 >{at}/enable; rmdir {at}")

    def connection(self, uuid: str, volume: str, *, paths: int = 1) -> dict[str, Any]:
        """As Cinder's drivers make it today: portals as lists."""
        portals = [[ip, "4420", "tcp"] for ip in PORTALS[:paths]]
        data = {"target_nqn": self.nqn, "portals": portals, "vol_uuid": uuid}
        return _connection("nvmeof", volume, {**data, "alias": None, "replica_count": None})


def _connection(kind: str, volume: str, data: dict[str, Any]) -> dict[str, Any]:
    return {"driver_volume_type": kind, "serial": volume, "data": data}


def put(machine: Virtual, path: str, connection: dict[str, Any]) -> None:
    """Write *connection* where the machine's commands can read it."""
    machine.run(f"cat >{path} <<'END'\n{json.dumps(connection)}\nEND")
