"""The cloud: keystone, placement, Nova, Cinder, RabbitMQ, and compute hosts with an agent each."""

from __future__ import annotations

import os
import subprocess
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from lab import host
from lab.cinder.real import SHARE, RealCloud
from lab.cloud import configuration, kept
from lab.cloud.broker import Broker
from lab.cloud.compute import ComputeHost, wait
from lab.cloud.control import PORTS, Control
from lab.fleet.node import OUTSIDE, Nodes
from lab.quobyte.cluster import Quobyte

VENV = Path(os.environ.get("MOORLINE_CLOUD", ""))
"""What `make test-cloud` installs; there is none unless it is told."""
_DRIVERS = {"hyperscale": "lab.cloud.hyperscale_driver.HyperScaleDriver"}
_RELEASED = "2.95"
"""A microversion of Nova's API that all of Nova 32 to 34 have."""


class NovaCloud:
    """From ``with`` to its end. *directory*: an empty one, of the lab's."""

    def __init__(self, directory: Path, hosts: int = 2) -> None:
        self.directory = directory  # the same each time: databases name it
        self._nodes = Nodes(directory, hosts)
        self.quobyte = Quobyte(host.LAB)
        self.share = self.quobyte.volume(SHARE)
        self.hosts: list[ComputeHost] = []
        self._stack = ExitStack()

    def __enter__(self) -> NovaCloud:
        with ExitStack() as stack:
            nodes = stack.enter_context(self._nodes)
            self.broker = Broker(self._made("rabbitmq"), OUTSIDE)
            stack.callback(self.broker.stop)
            at, control = self._made("cinder"), self._made("control")
            saved = kept.restore(self.directory, VENV)
            self.real = RealCloud(at, self.share.export, VENV, OUTSIDE, PORTS, _DRIVERS)
            with (at / "cinder.conf").open("a") as file:
                file.write(configuration.cinder_asks_nova(self.real.identity))
            stack.callback(self.real.stop)
            self.real.make()
            self.control = Control(control, self.real, self.broker.url)
            if not saved:
                self.control.fill()
                kept.save(self.directory, VENV)
            stack.callback(self.control.stop)
            self.control.start()
            self._connect()
            self.log = self._made("log")
            for node in nodes:
                self.hosts.append(ComputeHost(node, VENV, self.log, self.nova_conf(node)))
                stack.callback(self.hosts[-1].stop)
                self.hosts[-1].start()
            self.wait_for_hosts()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self._stack.close()
        self.quobyte.clear()
        # Moorline's mount points are immutable; what was given back to Nova is not removed.
        theirs = [each.configuration.parent for each in self.hosts]
        subprocess.run(["chattr", "-R", "-f", "-i", *theirs], check=False)

    def nova_conf(self, node: Any, more: str = "") -> str:
        url = self.broker.url
        return configuration.nova(self.real.identity, url, node.name, node.address, VENV, more)

    def wait_for_hosts(self) -> None:
        """Until Nova has all of them, and has heard from each since it was started."""

        def there() -> bool:
            for each in self.hosts:
                assert each.runs("nova-compute"), each.log("nova-compute")[-4000:]
            services = self.compute.get("/os-services?binary=nova-compute").json()["services"]
            heard = {each["host"]: each["updated_at"] or "" for each in services}
            found = self.compute.get("/os-hypervisors").json()["hypervisors"]
            known = {each["hypervisor_hostname"] for each in found if each["state"] == "up"}
            return all(
                each.name in known and heard.get(each.name, "") > each.heard_after
                for each in self.hosts
            )

        wait(there, "Nova knows its hosts")

    def say_down(self, host: ComputeHost, *, down: bool) -> None:
        """An operator tells Nova that a host is dead, or not any more.

        Nova does not believe the latter before nova-compute has looked what was evacuated.
        """
        services = self.compute.get("/os-services?binary=nova-compute").json()["services"]
        (id,) = (each["id"] for each in services if each["host"] == host.name)
        asked = {"forced_down": down}
        wait(lambda: self.compute.put(f"/os-services/{id}", json=asked).ok, "Nova believes it")

    def logs(self) -> str:
        """What went wrong, by everybody's word, for a story that fails."""
        paths = [*self.log.glob("*.log"), self.control.log]
        paths.append(self.real.at / "volume.log")
        words = (" ERROR ", "Traceback", "No valid host", "returned 0 hosts")
        said = []
        for path in paths:
            lines = path.read_text(errors="replace").splitlines()
            said += [f"--- {path.name}"]
            said += [line[:600] for line in lines if any(word in line for word in words)][-25:]
        return "\n".join(said)

    def _connect(self) -> None:
        connection = self.real.connect("nova", "admin")
        self.compute = connection.compute
        self.compute.default_microversion = _RELEASED
        self.volumes = connection.block_storage
        self.volumes.default_microversion = "3.59"
        for flavor, ram in (("tiny", 64), ("larger", 96)):
            how = {"name": flavor, "ram": ram, "vcpus": 1, "disk": 0, "id": flavor}
            assert self.compute.post("/flavors", json={"flavor": how}).ok
        kinds = {kind: {"volume_backend_name": kind} for kind in ("quobyte", *_DRIVERS)}
        kinds["shared"] = {**kinds["hyperscale"], "multiattach": "<is> True"}
        for name, specs in kinds.items():
            asked = {"name": name, "extra_specs": specs}
            assert self.volumes.post("/types", json={"volume_type": asked}).ok

    def _made(self, name: str) -> Path:
        at = self.directory / name
        at.mkdir(mode=0o755)
        return at
