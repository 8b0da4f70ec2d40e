"""A server of the cloud, and its volumes, as Nova, Cinder, libvirt and the agents have them."""

from __future__ import annotations

import json
import sqlite3
import uuid
from contextlib import closing
from typing import Any
from xml.etree import ElementTree as ET

from lab.cloud.compute import ComputeHost, wait
from lab.cloud.site import NovaCloud

GIB = 1
_MAPPINGS = """\
select json_object('instance_uuid', b.instance_uuid, 'volume_id', b.volume_id,
                   'connection_info', b.connection_info)
from block_device_mapping b join instances i on i.uuid = b.instance_uuid
where i.uuid = ? and b.deleted = 0 and b.destination_type = 'volume';
"""
_IMAGE = {"hw_disk_bus": "scsi", "hw_scsi_model": "virtio-scsi", "hw_video_model": "none"}
"""Of a guest without a system: a disk of virtio-blk would not let go of its slot."""


class Volume:
    """One of Cinder's. *how*: more of what Cinder is asked for."""

    def __init__(self, cloud: NovaCloud, *, bootable: bool = False, **how: Any) -> None:
        self._cloud = cloud
        asked = {"size": GIB, "volume_type": "quobyte", "name": f"v-{uuid.uuid4().hex[:6]}", **how}
        answer = cloud.volumes.post("/volumes", json={"volume": asked})
        assert answer.ok, answer.text
        self.id: str = answer.json()["volume"]["id"]
        wait(lambda: self.status == "available", f"{self.id} is {self.status}")
        if bootable:
            self.act("os-set_bootable", {"bootable": True})
            self.act("os-set_image_metadata", {"metadata": _IMAGE})

    @property
    def status(self) -> str:
        answer = self._cloud.volumes.get(f"/volumes/{self.id}")
        status = answer.json()["volume"]["status"] if answer.ok else str(answer.status_code)
        assert not status.startswith("error"), f"{self.id} is {status}\n{self._cloud.real.log()}"
        return str(status)

    def attachments(self) -> list[str]:
        """The servers that Cinder says have it."""
        found = self._cloud.volumes.get("/attachments/detail", params={"volume_id": self.id})
        return sorted(each["instance"] for each in found.json()["attachments"])

    def act(self, action: str, how: Any) -> None:
        answer = self._cloud.volumes.post(f"/volumes/{self.id}/action", json={action: how})
        assert answer.ok, answer.text

    def delete(self) -> None:
        """Cinder refuses one that is attached."""
        if self.status == "404":
            return
        wait(lambda: self.status == "available", f"{self.id} is {self.status}")
        answer = self._cloud.volumes.delete(f"/volumes/{self.id}")
        assert answer.ok, answer.text
        wait(lambda: self.status == "404", f"{self.id} is {self.status}")


class Server:
    """Booted from its first volume, without a network, on *at* (None: anywhere); not ACTIVE yet."""

    def __init__(
        self, cloud: NovaCloud, *volumes: Volume, at: ComputeHost | None = None, **how: Any
    ) -> None:
        self._cloud = cloud
        self.name = f"s-{uuid.uuid4().hex[:6]}"
        asked: dict[str, Any] = {
            "name": self.name,
            "flavorRef": "tiny",
            "imageRef": "",
            "networks": "none",
            "block_device_mapping_v2": [_mapping(each, n) for n, each in enumerate(volumes)],
            **how,
        }
        if at is not None:
            asked["host"] = at.name
        answer = cloud.compute.post("/servers", json={"server": asked})
        assert answer.ok, answer.text
        self.id: str = answer.json()["server"]["id"]

    def told(self) -> dict[str, Any]:
        """What Nova says of it; {} if it is gone."""
        answer = self._cloud.compute.get(f"/servers/{self.id}")
        return dict(answer.json()["server"]) if answer.ok else {}

    @property
    def host(self) -> ComputeHost:
        """Where it is, by Nova's word."""
        name = self.told()["OS-EXT-SRV-ATTR:host"]
        return next(each for each in self._cloud.hosts if each.name == name)

    @property
    def other(self) -> ComputeHost:
        """A host where it is not."""
        here = self.host
        return next(each for each in self._cloud.hosts if each is not here)

    def becomes(self, status: str, seconds: float = 240) -> None:
        """Wait until Nova says so and is at nothing more; it must not end in ERROR instead."""

        def reached() -> bool:
            told = self.told()
            its = told.get("status")
            if its == "ERROR" != status:
                raise AssertionError(f"{told.get('fault')}\n{self._cloud.logs()}")
            return its == status and not told["OS-EXT-STS:task_state"]

        wait(reached, f"{self.name} becomes {status}", seconds)

    def act(self, action: str, how: Any = None) -> None:
        answer = self._cloud.compute.post(f"/servers/{self.id}/action", json={action: how})
        assert answer.ok, answer.text

    def attach(self, volume: Volume) -> None:
        """And wait until Nova, Cinder and the guest have it."""
        self.ask_to_attach(volume)
        wait(lambda: volume.status == "in-use", f"{volume.id} is attached")

    def ask_to_attach(self, volume: Volume) -> None:
        path = f"/servers/{self.id}/os-volume_attachments"
        answer = self._cloud.compute.post(path, json={"volumeAttachment": {"volumeId": volume.id}})
        assert answer.ok, answer.text

    def detach(self, volume: Volume) -> None:
        self.ask_to_detach(volume)
        wait(lambda: volume.id not in self.volumes(), f"{volume.id} is detached")

    def ask_to_detach(self, volume: Volume) -> None:
        path = f"/servers/{self.id}/os-volume_attachments/{volume.id}"
        answer = self._cloud.compute.delete(path)
        assert answer.ok, answer.text

    def volumes(self) -> list[str]:
        """By Nova's word."""
        answer = self._cloud.compute.get(f"/servers/{self.id}/os-volume_attachments")
        return [each["volumeId"] for each in answer.json().get("volumeAttachments", ())]

    def disks(self, host: ComputeHost | None = None) -> dict[str, str]:
        """The paths of its disks by volume, by libvirt's word on *host*; {} where it is not."""
        import libvirt

        connection = libvirt.open((host or self.host).node.libvirt_uri)
        try:
            domain = ET.fromstring(connection.lookupByUUIDString(self.id).XMLDesc())
        except libvirt.libvirtError as e:
            if e.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
            return {}
        finally:
            connection.close()
        return {
            disk.findtext("serial", ""): source.get("file") or source.get("dev") or ""
            for disk in domain.iterfind("devices/disk")
            for source in disk.iterfind("source")
        }

    def migrate_live(self, target: ComputeHost) -> None:
        """And wait until it is there."""
        self.ask_to_migrate_live(target)
        wait(lambda: self.host is target, "the server moves", 240)
        self.becomes("ACTIVE")

    def ask_to_migrate_live(self, target: ComputeHost) -> None:
        self.act("os-migrateLive", {"host": target.name, "block_migration": "auto"})

    def mappings(self) -> list[dict[str, str]]:
        """Its volumes as Nova's database has them, by the query that docs/nova.md has."""
        with closing(sqlite3.connect(self._cloud.control.at / "cell1.db")) as database:
            rows = database.execute(_MAPPINGS, (self.id,)).fetchall()
        return [json.loads(row) for (row,) in rows]

    def size_of(self, path: str) -> int:
        """The bytes of its disk at *path*, by QEMU's word."""
        asked = json.dumps({"execute": "query-named-block-nodes"})
        told = self.host.node.run("virsh", "qemu-monitor-command", self.id, asked)
        images = [each["image"] for each in json.loads(told)["return"]]
        return int(max(each["virtual-size"] for each in images if each["filename"] == path))

    def ask_to_be_deleted(self) -> None:
        answer = self._cloud.compute.delete(f"/servers/{self.id}")
        assert answer.ok, answer.text

    def delete(self) -> None:
        if self.told():
            self.ask_to_be_deleted()
            wait(lambda: not self.told(), f"{self.name} is gone")


def _mapping(volume: Volume, number: int) -> dict[str, Any]:
    return {
        "source_type": "volume",
        "destination_type": "volume",
        "uuid": volume.id,
        "boot_index": 0 if number == 0 else -1,
    }
