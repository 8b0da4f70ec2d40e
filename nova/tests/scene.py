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
import re
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from nova.tests import functional  # isort: skip  # it must be the first of Nova's
import fixtures
from hosts import ComputeHost, mounted_beneath, patiently, until
from nova import context, objects
from nova.conf import CONF
from nova.tests.fixtures import CinderFixture
from nova.tests.fixtures import libvirt as domains
from nova.tests.functional.api.client import OpenStackApiException
from nova.tests.functional.libvirt import base
from testtools import ExpectedException

from lab.hyperscale.installation import HyperScale
from lab.quobyte.cluster import Quobyte, QuobyteVolume
from lab.virtuozzo.cluster import Cluster, Virtuozzo

__all__ = ["Scene", "functional", "until", "virsh"]

BOOT = CinderFixture.IMAGE_BACKED_VOL
SHARED = CinderFixture.MULTIATTACH_VOL
SWAPPED, SWAPPED_FOR = CinderFixture.SWAP_OLD_VOL, CinderFixture.SWAP_NEW_VOL
PASSWORD = "geh:/eim, really"


class Scene(base.ServersTestBase):
    """A cloud with one compute host, *one*; a test may start a second, *two*."""

    compute_driver = "moorline.LibvirtDriver"
    microversion = "latest"
    ADMIN_API = True

    def setUp(self) -> None:
        lab = Path(os.environ["MOORLINE_LAB"])
        self.base = Path(tempfile.mkdtemp(prefix="nova-", dir=lab))
        self.base.chmod(0o755)
        self.hosts: dict[str, ComputeHost] = {}
        self.connections = copy.deepcopy(CinderFixture.VOLUME_CONNECTION_INFO)
        self.storage, self.virtuozzo, self.hyperscale = (
            Quobyte(lab),
            Virtuozzo(lab),
            HyperScale(lab),
        )
        products = (self.storage, self.virtuozzo, self.hyperscale)
        self.addCleanup(clear, self.base, products)  # Nova has taken our attributes by then
        self.share = self.storage.volume("share")
        super().setUp()
        parse, told = domains._parse_disk_info, domains.Domain.XMLDesc
        self.libvirt_does("_parse_disk_info", lambda disk: {**parse(disk), **serial_of(disk)})
        self.libvirt_does("Domain.XMLDesc", lambda it, flags: with_serials(it, told(it, flags)))
        define = domains.Connection.secretDefineXML
        self.libvirt_does("Connection.secretDefineXML", lambda it, xml: define(it, with_id(xml)))
        self.resized: list[tuple[str, int]] = []
        self.libvirt_does(
            "Domain.blockResize", lambda _, disk, size, flags: self.resized.append((disk, size))
        )
        self.cinder = self.useFixture(CinderFixture(self))
        self.cinder.VOLUME_CONNECTION_INFO = self.connections
        self.compute_host("one")

    def _wait_for_server_parameter(self, *given: Any, **how: Any) -> Any:
        return patiently(super()._wait_for_server_parameter, *given, **how)

    def _wait_for_migration_status(self, *given: Any, **how: Any) -> Any:
        return patiently(super()._wait_for_migration_status, *given, **how)

    def _wait_until_deleted(self, *given: Any, **how: Any) -> Any:
        return patiently(super()._wait_until_deleted, *given, **how)

    def libvirt_does(self, method: str, instead: Callable[..., Any]) -> None:
        """Teach ``fakelibvirt`` what it does not know."""
        self.useFixture(fixtures.MonkeyPatch(f"nova.tests.fixtures.libvirt.{method}", instead))

    def _setup_compute_service(self) -> None:
        self.flags(compute_driver=self.compute_driver)
        # ``fakelibvirt`` does not tell that a disk is gone; Nova looks when it has waited so long.
        self.flags(device_detach_timeout=1, group="libvirt")

    def compute_host(self, name: str) -> ComputeHost:
        """Start a compute host: its agent, then its nova-compute."""
        host = self.hosts[name] = ComputeHost(self.base, name)
        self.addCleanup(host.stop)  # it may be up, and too late for us
        host.start()
        self.plug(host)
        self.start_compute(name)
        return host

    def second_host(self) -> None:
        """Start *two*, and a server on *one*; named as Nova's own migration tests expect."""
        self.compute_host("two")
        self.boot = self.volume(BOOT)
        self.server = Scene.server(self, self.boot)
        self.src, self.dest = self.computes["one"], self.computes["two"]

    def plug(self, host: ComputeHost) -> None:
        """Let the nova-compute that is made next be that of *host*."""
        from moorline_nova import options

        options.register(CONF)
        self.flags(socket=str(host.socket), timeout=20, group="moorline")
        self.flags(pending_dir=str(self.base / "pending"), group="moorline")
        self.flags(quobyte_mount_point_base=str(host.mounts), group="libvirt")
        self.flags(volume_types=["veritas_hyperscale", "vzstorage", "quobyte"], group="moorline")

    def cluster(self) -> Cluster:
        """A Virtuozzo cluster with a password."""
        return self.virtuozzo.cluster("vault", password=PASSWORD)

    def volume(
        self, id: str = "", share: QuobyteVolume | Cluster | None = None, **data: Any
    ) -> str:
        """Make a volume that is a file on *share*; return its id."""
        id = id or str(uuid.uuid4())
        share = share or self.share
        share.disk(f"volume-{id}")
        name = data.pop("name", f"volume-{id}")
        return self.cinder_has(id, share.connection(name, **data))

    def cinder_has(self, id: str, connection: dict[str, Any]) -> str:
        """Let Cinder know the volume; return its id."""
        self.connections[id] = connection
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
        domain = ET.fromstring(domain.XMLDesc(0))
        return {
            disk.findtext("serial", ""): source.get("file") or source.get("dev", "")
            for disk in domain.iterfind("devices/disk")
            for source in disk.iterfind("source")
        }

    def config(self, server: dict[str, Any], volume: str, host: str = "one") -> ET.Element:
        """The disk as Nova writes it now; ``fakelibvirt`` keeps only half of what it is told."""
        driver = self.computes[host].driver
        disk = {"bus": "virtio", "dev": "vdb", "type": "disk"}
        info = self.kept(server, volume)
        written = driver._get_volume_driver(info).get_config(info, disk)
        driver._set_cache_mode(written)
        return ET.fromstring(written.to_xml())

    def make_directory(self, server: dict[str, Any]) -> None:
        """Nova's fixtures make none for an instance."""
        (Path(CONF.instances_path) / server["id"]).mkdir(exist_ok=True)

    def kept(self, server: dict[str, Any], volume: str) -> dict[str, Any]:
        """The connection as Nova keeps it in its database."""
        found = objects.BlockDeviceMappingList.get_by_instance_uuid(
            context.get_admin_context(), server["id"]
        )
        connection: dict[str, Any] = json.loads(
            next(each for each in found if each.volume_id == volume).connection_info
        )
        return connection

    def _attach_volume(self, server: dict[str, Any], volume: str) -> None:
        """Nova 32's harness has none."""
        self.api.post_server_volume(server["id"], {"volumeAttachment": {"volumeId": volume}})
        until(lambda: volume in self.attached(server))

    def _live_migrate(
        self, server: dict[str, Any], host: str, migration_expected_state: str = "completed"
    ) -> None:
        """Nova 32's harness chooses the host."""
        how = {"os-migrateLive": {"host": host, "block_migration": "auto"}}
        self.api.post_server_action(server["id"], how)
        self._wait_for_migration_status(server, [migration_expected_state])
        self._wait_for_state_change(server, "ACTIVE")

    def _wait_for_migration_status(self, server: dict[str, Any], expected: list[str]) -> None:
        """More patient than Nova's: mounts and agents take their time here."""

        def reached() -> bool:
            migrations = self.api.api_get("/os-migrations").body["migrations"]
            mine = [each for each in migrations if each["instance_uuid"] == server["id"]]
            return any(each["status"].lower() in expected for each in mine)

        until(reached)

    def attach_fails(self, server: dict[str, Any], volume: str) -> None:
        """In this harness the API waits for the compute host, and tells its error."""
        with ExpectedException(OpenStackApiException):
            self._attach_volume(server, volume)

    def detach(self, server: dict[str, Any], volume: str) -> None:
        self.api.delete_server_volume(server["id"], volume)
        until(lambda: volume not in self.attached(server))

    def extend(self, server: dict[str, Any], volume: str, gibibytes: int) -> None:
        """Cinder has extended it, and tells Nova; wait until the guest was told."""
        before = len(self.resized)
        self._extended(server, volume, gibibytes)
        until(lambda: len(self.resized) > before)

    def extension_fails(self, server: dict[str, Any], volume: str, gibibytes: int) -> None:
        """Cinder says that it has extended it, and that cannot be told the guest."""
        with ExpectedException(OpenStackApiException):
            self._extended(server, volume, gibibytes)

    def _extended(self, server: dict[str, Any], volume: str, gibibytes: int) -> None:
        self.cinder.volumes[volume] = {"id": volume, "size": gibibytes, "multiattach": False}
        event = {"name": "volume-extended", "server_uuid": server["id"], "tag": volume}
        self.api.create_server_external_events([event])

    def attached(self, server: dict[str, Any]) -> list[str]:
        """The server's volumes, as Nova tells them."""
        return [each["volumeId"] for each in self.api.get_server_volumes(server["id"])]

    def one(self) -> ComputeHost:
        return self.hosts["one"]

    def logged(self) -> str:
        """What nova-compute has logged."""
        return str(self.stdlog.logger.output)

    def warned(self) -> list[str]:
        """Of that, what the plug-in has an operator look at."""
        return [
            line
            for line in self.logged().splitlines()
            if re.search(r" (WARNING|ERROR) \[moorline", line)
        ]


def clear(base: Path, products: Iterable[Quobyte | Virtuozzo | HyperScale]) -> None:
    """Leave nothing behind: no mount, no device, no immutable mount point."""
    for mount in mounted_beneath(base):
        subprocess.run(["umount", "-l", mount], check=False)
    subprocess.run(["chattr", "-R", "-f", "-i", base], check=False)
    shutil.rmtree(base)
    for product in products:
        product.clear()


def serial_of(disk: Any) -> dict[str, str]:
    """What ``fakelibvirt`` forgets of a disk."""
    return {"serial": disk.findtext("serial") or ""}


def with_serials(domain: Any, xml: str) -> str:
    """The domain's XML with the serials of its disks."""
    written = ET.fromstring(xml)
    known = domain._def["devices"]["disks"]
    for disk, info in zip(written.iterfind("devices/disk"), known, strict=True):
        if info["serial"]:
            ET.SubElement(disk, "serial").text = info["serial"]
    return ET.tostring(written, encoding="unicode")


def with_id(xml: str) -> str:
    """A secret's XML with an id, as libvirt gives it one."""
    secret = ET.fromstring(xml)
    if secret.find("uuid") is None:
        ET.SubElement(secret, "uuid").text = str(uuid.uuid4())
    return ET.tostring(secret, encoding="unicode")


def virsh(*words: str) -> str:
    """Ask the agents' own libvirt, which is not Nova's here."""
    return subprocess.run(["virsh", *words], check=True, capture_output=True, text=True).stdout
