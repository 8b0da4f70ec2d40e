"""Nova's functional harness with real agents, stand-in clients and real mounts.

Real: Nova's API, conductor, scheduler and compute manager, its libvirt driver,
this plug-in, the agent and its mounts. Not real: Cinder, Neutron and Glance
(Nova's own fixtures) and libvirt (Nova's ``fakelibvirt``), as in Nova's own
functional tests.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import tempfile
import uuid
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from nova.tests import functional  # isort: skip  # it must be the first of Nova's
from hosts import ComputeHost, until
from nova import context, objects
from nova.tests.fixtures import CinderFixture
from nova.tests.functional.api.client import OpenStackApiException
from nova.tests.functional.libvirt import base

from lab.quobyte import Quobyte, QuobyteVolume

__all__ = ["Scene", "functional", "until"]

BOOT = CinderFixture.IMAGE_BACKED_VOL
SHARED = CinderFixture.MULTIATTACH_VOL


class Scene(base.ServersTestBase):
    """A cloud with one compute host, *one*; a test may start a second, *two*."""

    microversion = "latest"
    ADMIN_API = True

    def setUp(self) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="moorline-nova-"))
        self.base.chmod(0o755)
        self.hosts: dict[str, ComputeHost] = {}
        self.connections = copy.deepcopy(CinderFixture.VOLUME_CONNECTION_INFO)
        self.storage = Quobyte(Path(os.environ["MOORLINE_LAB"]))
        self.share = self.storage.volume(f"share-{uuid.uuid4().hex[:8]}")
        super().setUp()
        self.cinder = self.useFixture(CinderFixture(self))
        self.cinder.VOLUME_CONNECTION_INFO = self.connections
        self.compute_host("one")

    def _setup_compute_service(self) -> None:
        self.flags(compute_driver="moorline.LibvirtDriver")

    def compute_host(self, name: str) -> ComputeHost:
        """Start a compute host: its agent, then its nova-compute."""
        host = self.hosts[name] = ComputeHost(self.base, name)
        host.start()
        self.addCleanup(self._stop, host)
        self.plug(host)
        self.start_compute(name)
        return host

    def plug(self, host: ComputeHost) -> None:
        """Let the nova-compute that is made next use the agent of *host*."""
        from moorline_nova import options
        from nova.conf import CONF

        options.register(CONF)
        self.flags(socket=str(host.socket), timeout=20, group="moorline")
        self.flags(volume_types=["veritas_hyperscale", "vzstorage", "quobyte"], group="moorline")

    def _stop(self, host: ComputeHost) -> None:
        host.stop()
        for mount in host.mounted():
            subprocess.run(["umount", "-l", mount], check=False)

    def volume(self, id: str = "", share: QuobyteVolume | None = None, **data: Any) -> str:
        """Make a volume; return its id."""
        id = id or str(uuid.uuid4())
        share = share or self.share
        share.disk(f"volume-{id}")
        self.connections[id] = share.connection(f"volume-{id}", **data)
        return id

    def server(self, *volumes: str, host: str = "one", state: str = "ACTIVE") -> dict[str, Any]:
        """Boot a server from its first volume."""
        mapping = [
            {
                "source_type": "volume",
                "destination_type": "volume",
                "uuid": volume,
                "boot_index": 0 if index == 0 else -1,
            }
            for index, volume in enumerate(volumes)
        ]
        server = self._build_server(image_uuid="", networks="none", host=host)
        server.pop("imageRef", None)
        server["block_device_mapping_v2"] = mapping
        created = self.api.post_server({"server": server})
        found: dict[str, Any] = self._wait_for_state_change(created, state)
        return found

    def disks(self, server: dict[str, Any], host: str = "one") -> dict[str, str]:
        """Paths of the server's disks by volume, as libvirt was told."""
        connection = self.computes[host].driver._host.get_connection()
        domain = connection.lookupByUUIDString(server["id"])
        sources = ET.fromstring(domain.XMLDesc(0)).iterfind("devices/disk/source")
        paths = [source.get("file", "") for source in sources]
        return {Path(path).name.removeprefix("volume-"): path for path in paths}

    def config(self, server: dict[str, Any], volume: str, host: str = "one") -> ET.Element:
        """The disk as Nova writes it now; ``fakelibvirt`` keeps only half of what it is told."""
        found = objects.BlockDeviceMappingList.get_by_instance_uuid(
            context.get_admin_context(), server["id"]
        )
        mapping = next(each for each in found if each.volume_id == volume)
        driver = self.computes[host].driver
        disk = {"bus": "virtio", "dev": "vdb", "type": "disk"}
        written = driver._get_volume_config(json.loads(mapping.connection_info), disk)
        return ET.fromstring(written.to_xml())

    def attach_fails(self, server: dict[str, Any], volume: str) -> None:
        """In this harness the API waits for the compute host, and tells its error."""
        with pytest.raises(OpenStackApiException):
            self._attach_volume(server, volume)

    def detach(self, server: dict[str, Any], volume: str) -> None:
        self.api.delete_server_volume(server["id"], volume)
        until(lambda: volume not in [v["volumeId"] for v in self._volumes(server)])

    def _volumes(self, server: dict[str, Any]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.api.get_server_volumes(server["id"])
        return found

    def one(self) -> ComputeHost:
        return self.hosts["one"]
