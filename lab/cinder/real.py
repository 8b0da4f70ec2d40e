"""The real keystone and Cinder, of PyPI, on a private host: `make test-cinder`.

Cinder's driver is its Quobyte one, whose client is the lab's stand-in. There is no Nova.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lab import processes
from lab.cinder.server import environment
from lab.leftovers import SERVICE

VENV = Path(os.environ.get("MOORLINE_CINDER", ""))
"""What `make test-cinder` installs; there is none unless it is told."""
SHARE = "cinder-volumes"
REGION = "RegionOne"
LOOPBACK = "127.0.0.1"
PASSWORD = "right"
NOTHING: Mapping[str, str] = MappingProxyType({})
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
enabled_backends = {backends}
host = lab
report_interval = 2
service_down_time = {down_seconds}
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
    """Keystone and Cinder below the directory *at*. *export*: what Cinder's volumes lie on.

    *venv* has them; *address*: where they listen, at *ports*, or at any that is free. Databases
    that are there are used. *more*: drivers of Cinder's beyond the one for Quobyte, by name.
    """

    def __init__(
        self,
        at: Path,
        export: str,
        venv: Path = VENV,
        address: str = LOOPBACK,
        ports: Sequence[int] = (),
        more: Mapping[str, str] = NOTHING,
    ) -> None:
        self.at, self.venv, self.address = at, venv, address
        names = ("identity", "volume")
        self._ports = dict(zip(names, ports or [_free_port(address) for _ in names], strict=True))
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.identity = self._url("identity")
        for name in ("fernet", "credential", "state", "lock", "mnt"):
            (at / name).mkdir(mode=0o755, exist_ok=True)
            (at / name).chmod(0o755)
        facts = {"at": at, "venv": venv, "identity": self.identity, "export": export}
        facts["backends"] = ",".join(["quobyte", *more])
        (at / "keystone.conf").write_text(_KEYSTONE.format(**facts))
        # Of several services of a process only the last one reports that it is up.
        facts["down_seconds"] = 86400 if more else 60
        sections = [
            f"[{name}]\nvolume_driver = {driver}\nvolume_backend_name = {name}\n"
            for name, driver in more.items()
        ]
        (at / "cinder.conf").write_text(_CINDER.format(**facts) + "".join(sections))

    def make(self) -> None:
        """Make the databases, start both, and have a project with two users."""
        made = (self.at / "keystone.db").exists()
        if not made:
            self._make_databases()
        self._start("identity", "keystone.conf", "/v3")
        if not made:
            self._fill()
        self.start()

    def _make_databases(self) -> None:
        as_root = ("--keystone-user", "root", "--keystone-group", "root")
        self._run("keystone-manage", "keystone.conf", "db_sync")
        self._run("keystone-manage", "keystone.conf", "fernet_setup", *as_root)
        self._run("keystone-manage", "keystone.conf", "credential_setup", *as_root)
        self._run(
            *("keystone-manage", "keystone.conf", "bootstrap", "--bootstrap-password", "right"),
            *("--bootstrap-public-url", f"{self.identity}/v3"),
            *("--bootstrap-region-id", REGION),
        )
        self._run("cinder-manage", "cinder.conf", "db", "sync")

    def start(self) -> None:
        """Start Cinder, and wait until its volume service is up."""
        self._start("volume", "cinder.conf", "/")
        admin = self.connect("admin", "admin")
        until(lambda: _up(admin), "Cinder's volume service")

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
            region_name=REGION,
            block_storage_api_version="3",
        )

    def environment(self, user: str = "moorline") -> Mapping[str, str]:
        """What a client is given in its environment."""
        named = {"OS_AUTH_URL": f"{self.identity}/v3", "OS_USERNAME": user}
        return {**environment(self.identity), **named, "OS_REGION_NAME": REGION}

    def log(self) -> str:
        """What Cinder said of its last errors."""
        lines = (self.at / "volume.log").read_text(errors="replace").splitlines()
        return "\n".join([line for line in lines if " ERROR " in line][-60:])

    def offer(self, name: str, kind: str, url: str) -> None:
        """Name a service in the catalogue."""
        identity = self.connect("admin", "admin").identity
        service = identity.create_service(name=name, type=kind)
        identity.create_endpoint(
            service_id=service.id, interface="public", region_id=REGION, url=url
        )

    def add_user(self, name: str, project: str, *roles: str) -> None:
        """A user with the password of all, of a project that may be new."""
        identity = self.connect("admin", "admin").identity
        its = identity.find_project(project, domain_id="default")
        its = its or identity.create_project(name=project, domain_id="default")
        user = identity.create_user(name=name, password=PASSWORD, domain_id="default")
        for role in roles:
            found = identity.find_role(role) or identity.create_role(name=role)
            identity.assign_project_role_to_user(its, user, found)

    def _fill(self) -> None:
        self.offer("cinder", "block-storage", f"{self._url('volume')}/v3")
        # There is no Nova to be asked: who lets go of an attachment has to be a service.
        self.add_user("moorline", "disks", "member", "service")
        self.add_user("plain", "disks", "member")

    def _url(self, name: str) -> str:
        return f"http://{self.address}:{self._ports[name]}"

    def _run(self, program: str, configuration: str, *words: str) -> None:
        done = subprocess.run(
            [self.venv / "bin" / program, "--config-file", self.at / configuration, *words],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{program} {words}: {done.stdout}{done.stderr}"

    def _start(self, name: str, configuration: str, path: str) -> None:
        log = self.at / f"{name}.log"
        words = (self.address, str(self._ports[name]), str(self.at / configuration))
        its = serve(self.venv, _SERVERS / f"{name}_server.py", words, log)
        self._running[name] = its
        answers(its, f"{self._url(name)}{path}", log)


def serve(
    venv: Path, script: Path, words: Sequence[str], log: Path, **environment: str
) -> subprocess.Popen[bytes]:
    """Start one of the lab's servers with the Python of *venv*."""
    # Cinder starts `privsep-helper` by its bare name.
    path = f"{venv}/bin:{os.environ['PATH']}"
    with log.open("ab") as stream:
        return subprocess.Popen(
            [venv / "bin/python", "-W", "ignore", script, *words],
            env={**os.environ, "PATH": path, SERVICE: script.stem, **environment},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
        )


def answers(its: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Wait until it answers there."""

    def answered() -> bool:
        assert its.poll() is None, log.read_text()[-4000:]
        try:
            urllib.request.urlopen(url, timeout=10).close()
        except OSError as e:
            return getattr(e, "code", 0) == 300  # versions to choose from
        return True

    until(answered, log.stem)


@contextmanager
def real_cloud(at: Path, export: str, more: Mapping[str, str] = NOTHING) -> Iterator[RealCloud]:
    """Keystone and Cinder, until the end. *more*: as of :class:`RealCloud`."""
    made = RealCloud(at, export, more=more)
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
    its = [each.state for each in services if each.binary == "cinder-volume"]
    return bool(its) and set(its) == {"up"}


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for what starts."""
    end = time.monotonic() + _START_SECONDS
    while not condition():
        assert time.monotonic() < end, f"{what} does not start"
        time.sleep(0.1)


def _free_port(address: str) -> int:
    with socket.create_server((address, 0)) as server:
        return int(server.getsockname()[1])
