"""The driver inside nova-compute, in Nova's functional harness, on Virtual Volumes.

Real: Nova's API, conductor, scheduler, placement and compute manager, the driver with its SOAP
client, the plug-in. Not real: vCenter (the lab's); Neutron, Cinder and Glance (Nova's fixtures).
"""

from __future__ import annotations

import datetime
import time
import uuid
from typing import Any
from unittest import mock

from nova.tests import functional  # isort: skip  # it must be the first of Nova's: it patches
from nova import test  # isort: skip  # in Nova 32 it is this one that does
from nova.tests.functional import integrated_helpers  # isort: skip  # options are read below
import fixtures
from cloudcase import GIB, LAB, cloud
from cloudcase import Cloud as Case
from nova.virt.vmwareapi import ds_util, images, vm_util
from urllib3.connection import HTTPSConnection

from lab.vcenter.images import stream
from lab.vcenter.rig import Operator

__all__ = ["functional", "test"]
cloud.CONF.clear()  # the harness has options of its own, and reads them anew
_NODES = {"host_ip": "localhost", "host_port": LAB.port, "ca_file": LAB.ca}
_WHO = {"host_username": LAB.user, "host_password": LAB.password, "cluster_name": LAB.cluster}
_PACE = {"task_poll_interval": 0.02, "api_retry_count": 1}


class InNova(integrated_helpers._IntegratedTestBase):
    ADMIN_API = True
    microversion = "latest"
    regex = "vvol1"

    def setUp(self) -> None:
        LAB.heal()
        self.images = cloud.Glance()
        patch = mock.patch.object(images, "IMAGE_API", self.images)
        patch.start()
        self.addCleanup(patch.stop)
        self.operator = Operator(LAB)
        self.addCleanup(self.operator.close)
        super().setUp()
        self.let_tls_through()

    def _wait_for_server_parameter(self, *given: Any, **how: Any) -> Any:
        return patiently(super()._wait_for_server_parameter, *given, **how)

    def _wait_until_deleted(self, *given: Any, **how: Any) -> Any:
        return patiently(super()._wait_until_deleted, *given, **how)

    def let_tls_through(self) -> None:
        """The harness takes requests' place, also for those to servers that are there."""
        name = "urllib3.connectionpool.HTTPSConnectionPool.ConnectionCls"
        self.useFixture(fixtures.MonkeyPatch(name, HTTPSConnection))

    def _setup_compute_service(self) -> Any:
        self.flags(compute_driver="moorline.VMwareVCDriver")
        self.flags(enabled=False, group="vnc")
        options = {"datastore_regex": self.regex, "pbm_enabled": False, **_NODES, **_WHO, **_PACE}
        self.flags(group="vmware", **options)
        vm_util.vm_refs_cache_reset()
        ds_util.dc_cache_reset()
        self.let_tls_through()
        return self._start_compute("compute1")

    def image(self, mib: int = 8) -> str:
        """One that Glance has, stream-optimized."""
        id, now = str(uuid.uuid4()), datetime.datetime.now(datetime.UTC)
        self.images.data[id] = stream(mib << 20, {0: b"grain"})
        self.glance.create(
            None,
            {
                "id": id,
                "name": "image",
                "created_at": now,
                "updated_at": now,
                "deleted_at": None,
                "deleted": False,
                "status": "active",
                "visibility": "public",
                "container_format": "bare",
                "disk_format": "vmdk",
                "size": len(self.images.data[id]),
                "min_ram": 0,
                "min_disk": 0,
                "protected": False,
                "tags": [],
                "properties": {
                    "hw_disk_type": "streamOptimized",
                    "vmware_disktype": "streamOptimized",
                },
            },
        )
        return id

    def boot(self, image: str) -> dict[str, Any]:
        made: dict[str, Any] = self._create_server(image_uuid=image, networks="none")
        return made

    def disks(self, server: dict[str, Any]) -> list[tuple[str, int]]:
        return Case.disks(self, mock.Mock(uuid=server["id"]))

    machine = Case.machine


def patiently(wait: Any, *given: Any, **how: Any) -> Any:
    """Have one of Nova's own waits go on: it gives up after 5 s, too soon for a busy machine."""
    end = time.monotonic() + 120
    while True:
        try:
            return wait(*given, **how)
        except AssertionError:
            if time.monotonic() > end:
                raise


class TestLife(InNova):
    def test_the_life_of_an_instance(self) -> None:
        server = self.boot(self.image())
        self.assertEqual(self.disks(server), [("vvol1", GIB)])
        server = self._stop_server(server)
        server = self._start_server(server)
        server = self._reboot_server(server, hard=True)
        self.assertEqual(self.disks(server), [("vvol1", GIB)])
        self._delete_server(server)
        self.assertEqual([file for file in LAB.files("vvol1") if server["id"] in file], [])
        self.assertEqual(LAB.disks_of(server["id"]), [])

    def test_the_cached_image_is_used_again(self) -> None:
        image = self.image()
        first = self.boot(image)
        imports = LAB.calls()["ImportVApp"]
        second = self.boot(image)
        self.assertEqual(LAB.calls()["ImportVApp"], imports)
        for server in (first, second):
            self._delete_server(server)

    def test_placement_knows_its_room(self) -> None:
        (provider,) = self.placement.get("/resource_providers").body["resource_providers"]
        path = f"/resource_providers/{provider['uuid']}/inventories"
        told = self.placement.get(path).body["inventories"]
        self.assertGreater(told["DISK_GB"]["total"], 0)
