"""The options of the cloud's services."""

from __future__ import annotations

from pathlib import Path

from lab.cinder.real import PASSWORD, REGION

STATE = Path("/run/nova")
"""What nova-compute writes, on each host for itself."""
_DATABASES = """\
[database]
connection = sqlite:///{at}/cell1.db?timeout=60
[api_database]
connection = sqlite:///{at}/api.db?timeout=60
"""
_COMMON = """\
[DEFAULT]
transport_url = {broker}
state_path = {state}
host = {host}
my_ip = {address}
compute_driver = {driver}
rpc_response_timeout = 120
report_interval = 2
service_down_time = 20
shutdown_timeout = 1
{more}
[conductor]
workers = 1
[scheduler]
workers = 1
discover_hosts_in_cells_interval = 1
[quota]
driver = nova.quota.NoopQuotaDriver
[vnc]
enabled = false
[glance]
endpoint_override = http://127.0.0.1:9
[cinder]
os_region_name = {region}
[service_user]
send_service_user_token = true
[oslo_concurrency]
lock_path = {state}/locks
[libvirt]
virt_type = qemu
cpu_mode = none
tb_cache_size = 32
live_migration_uri = qemu+tls://%s/system?pkipath=/etc/libvirt/pki
live_migration_inbound_addr = {address}
[nova_sys_admin]
helper_command = {helper}
[privsep_osbrick]
helper_command = {helper}
"""
_PLACEMENT = """\
[placement_database]
connection = sqlite:///{at}/placement.db?timeout=60
sync_on_startup = true
"""
_AUTHENTICATED = ("keystone_authtoken", "service_user", "placement", "cinder", "neutron")
_AUTHENTICATION = """\
[{section}]
auth_url = {identity}/v3
auth_type = password
project_domain_id = default
user_domain_id = default
project_name = admin
username = nova
password = {password}
interface = public
region_name = {region}
"""


def nova(
    identity: str, broker: str, host: str, address: str, venv: Path, more: str = "", **how: object
) -> str:
    """``nova.conf`` of a service on *host*. *more*: lines for ``[DEFAULT]``."""
    facts = {
        "broker": broker,
        "host": host,
        "address": address,
        "driver": "moorline.LibvirtDriver",
        "state": STATE,
        "region": REGION,
        "helper": f"{venv}/bin/privsep-helper",
        "more": more,
    }
    return _COMMON.format(**{**facts, **how}) + _authentication(identity, _AUTHENTICATED)


def databases(at: Path) -> str:
    """What the control services' ``nova.conf`` has beyond a compute host's."""
    return _DATABASES.format(at=at)


def cinder_asks_nova(identity: str) -> str:
    """What Cinder's own configuration has beyond its own."""
    return _authentication(identity, ("nova",))


def placement(identity: str, at: Path) -> str:
    return _PLACEMENT.format(at=at) + _authentication(identity, _AUTHENTICATED[:1])


def _authentication(identity: str, sections: tuple[str, ...]) -> str:
    facts = {"identity": identity, "password": PASSWORD, "region": REGION}
    return "".join(_AUTHENTICATION.format(section=section, **facts) for section in sections)
