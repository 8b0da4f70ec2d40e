"""The real keystone and Cinder, of PyPI, on a private host: `make test-cinder`.

Cinder's driver is its Quobyte one, whose client is the lab's stand-in. There is no Nova.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab import processes
from lab.cinder.server import environment
from lab.leftovers import SERVICE

VENV = Path(os.environ.get("MOORLINE_CINDER", ""))
"""What `make test-cinder` installs; there is none unless it is told."""
SHARE = "cinder-volumes"
_SERVERS = Path(__file__).parent
_START_SECONDS = 180
_KEYSTONE = """\
[database]
connection = sqlite:///{at}/keystone.db?timeout=60
[fernet_tokens]
key_repository = {at}/fernet
[fernet_receipts]
key_repository = {at}/fernet
[credential]
key_repository = {at}/credential
"""
_CINDER = """\
[DEFAULT]
transport_url = fake://
auth_strategy = keystone
api_paste_config = {venv}/etc/cinder/api-paste.ini
resource_query_filters_file = {venv}/etc/cinder/resource_filters.json
state_path = {at}/state
enabled_backends = quobyte
host = lab
report_interval = 2
scheduler_driver_init_wait_time = 1
[database]
connection = sqlite:///{at}/cinder.db?timeout=60
[keystone_authtoken]
auth_url = {identity}
auth_type = password
interface = public
project_domain_id = default
user_domain_id = default
project_name = admin
username = admin
password = right
service_token_roles = service
service_token_roles_required = true
[oslo_concurrency]
lock_path = {at}/lock
[coordination]
backend_url = file://{at}/coordination
[quobyte]
volume_driver = cinder.volume.drivers.quobyte.QuobyteDriver
volume_backend_name = quobyte
quobyte_volume_url = quobyte://{export}
quobyte_mount_point_base = {at}/mnt
quobyte_qcow2_volumes = false
quobyte_sparsed_volumes = true
"""


class RealCloud:
    """Keystone and Cinder below the directory *at*. *export*: what Cinder's volumes lie on."""

    def __init__(self, at: Path, export: str) -> None:
        self.at = at
        self._ports = {"identity": _free_port(), "volume": _free_port()}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.identity = f"http://127.0.0.1:{self._ports['identity']}"
        for name in ("fernet", "credential", "state", "lock", "mnt"):
            (at / name).mkdir(mode=0o755)
            (at / name).chmod(0o755)
        facts = {"at": at, "venv": VENV, "identity": self.identity, "export": export}
        (at / "keystone.conf").write_text(_KEYSTONE.format(**facts))
        (at / "cinder.conf").write_text(_CINDER.format(**facts))

    def make(self) -> None:
        """Make the databases, start both, and have a project with two users."""
        as_root = ("--keystone-user", "root", "--keystone-group", "root")
        self._run("keystone-manage", "keystone.conf", "db_sync")
        self._run("keystone-manage", "keystone.conf", "fernet_setup", *as_root)
        self._run("keystone-manage", "keystone.conf", "credential_setup", *as_root)
        self._run(
            *("keystone-manage", "keystone.conf", "bootstrap", "--bootstrap-password", "right"),
            *("--bootstrap-public-url", f"{self.identity}/v3"),
            *("--bootstrap-region-id", "RegionOne"),
        )
        self._run("cinder-manage", "cinder.conf", "db", "sync")
        self._start("identity", "keystone.conf", "/v3")
        self._fill()
        self.start()

    def start(self) -> None:
        """Start Cinder, and wait until its volume service is up."""
        self._start("volume", "cinder.conf", "/")
        admin = self.connect("admin", "admin")
        _until(lambda: _up(admin), "Cinder's volume service")

    def kill(self) -> None:
        """End Cinder as a crash does."""
        its = self._running.pop("volume")
        processes.kill(its.pid)
        its.wait()

    def stop(self) -> None:
        for its in self._running.values():
            its.kill()
            its.wait()
        for mount in (self.at / "mnt").iterdir():
            subprocess.run(["umount.quobyte", mount], check=True)

    def connect(self, user: str = "moorline", project: str = "disks") -> Any:
        """openstacksdk's connection."""
        import openstack

        return openstack.connect(
            auth={
                "auth_url": f"{self.identity}/v3",
                "username": user,
                "password": "right",
                "project_name": project,
                "user_domain_id": "default",
                "project_domain_id": "default",
            },
            region_name="RegionOne",
            block_storage_api_version="3",
        )

    def environment(self, user: str = "moorline") -> Mapping[str, str]:
        """What a client is given in its environment."""
        named = {"OS_AUTH_URL": f"{self.identity}/v3", "OS_USERNAME": user}
        return {**environment(self.identity), **named, "OS_REGION_NAME": "RegionOne"}

    def log(self) -> str:
        """What Cinder said of its last errors."""
        lines = (self.at / "volume.log").read_text(errors="replace").splitlines()
        return "\n".join([line for line in lines if " ERROR " in line][-60:])

    def _fill(self) -> None:
        identity = self.connect("admin", "admin").identity
        service = identity.create_service(name="cinder", type="block-storage")
        url = f"http://127.0.0.1:{self._ports['volume']}/v3"
        identity.create_endpoint(
            service_id=service.id, interface="public", region_id="RegionOne", url=url
        )
        project = identity.create_project(name="disks", domain_id="default")
        # There is no Nova to be asked: who lets go of an attachment has to be a service.
        for name, roles in (("moorline", ("member", "service")), ("plain", ("member",))):
            user = identity.create_user(name=name, password="right", domain_id="default")
            for role in roles:
                found = identity.find_role(role, ignore_missing=True)
                found = found or identity.create_role(name=role)
                identity.assign_project_role_to_user(project, user, found)

    def _run(self, program: str, configuration: str, *words: str) -> None:
        done = subprocess.run(
            [VENV / "bin" / program, "--config-file", self.at / configuration, *words],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{program} {words}: {done.stdout}{done.stderr}"

    def _start(self, name: str, configuration: str, path: str) -> None:
        with (self.at / f"{name}.log").open("ab") as log:
            its = subprocess.Popen(
                [
                    *(VENV / "bin/python", "-W", "ignore", _SERVERS / f"{name}_server.py"),
                    *(str(self._ports[name]), self.at / configuration),
                ],
                # Cinder starts `privsep-helper` by its bare name.
                env={**os.environ, "PATH": f"{VENV}/bin:{os.environ['PATH']}", SERVICE: name},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._running[name] = its
        url = f"http://127.0.0.1:{self._ports[name]}{path}"

        def answers() -> bool:
            assert its.poll() is None, (self.at / f"{name}.log").read_text()[-4000:]
            try:
                urllib.request.urlopen(url, timeout=10).close()
            except OSError as e:
                return getattr(e, "code", 0) == 300  # versions to choose from
            return True

        _until(answers, name)


@contextmanager
def real_cloud(at: Path, export: str) -> Iterator[RealCloud]:
    """Keystone and Cinder, until the end."""
    made = RealCloud(at, export)
    try:
        made.make()
        yield made
    finally:
        made.stop()


def _up(admin: Any) -> bool:
    try:
        services = list(admin.block_storage.services())
    except Exception:  # noqa: BLE001 - it starts
        return False
    return any(each.binary == "cinder-volume" and each.state == "up" for each in services)


def _until(condition: Any, what: str) -> None:
    end = time.monotonic() + _START_SECONDS
    while not condition():
        assert time.monotonic() < end, f"{what} does not start"
        time.sleep(0.1)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
