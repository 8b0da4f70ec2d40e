"""Virtuozzo and HyperScale volumes, through Nova's own API."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from nova.tests.functional.libvirt import base
from scene import BOOT, Scene, until

from lab.hyperscale.installation import HyperScaleVolume


class TestVirtuozzo(base.LibvirtMigrationMixin, Scene):
    def setUp(self) -> None:
        super().setUp()
        self.vault = self.cluster()
        self.boot = self.volume(BOOT, share=self.vault)
        self.server = Scene.server(self, self.boot)
        self.src = self.computes["one"]

    def _migrate_stub(self, domain: Any, destination: str, params: Any, flags: int) -> None:
        self.to_be = ET.fromstring(params["destination_xml"])
        super()._migrate_stub(domain, destination, params, flags)

    def test_boot_attach_detach(self) -> None:
        data = self.volume(share=self.vault)
        (mount,) = self.one().mounted()
        assert Path(self.disks(self.server)[self.boot]).parent == Path(mount)
        self._attach_volume(self.server, data)
        assert Path(self.disks(self.server)[data]).exists()
        disk = self.config(self.server, data)
        assert disk.get("type") == "file"
        assert disk.find("driver[@type='raw'][@cache='writeback']") is not None
        assert disk.find("source/seclabel[@model='dac'][@relabel='no']") is not None
        self.detach(self.server, data)
        assert self.one().mounted() == [mount]
        self._delete_server(self.server)
        until(lambda: not self.one().attachments())
        assert self.one().mounted() == []

    def test_live_migration(self) -> None:
        self.compute_host("two")
        self.dest = self.computes["two"]
        self._live_migrate(self.server, host="two")
        (mount,) = self.hosts["two"].mounted()
        source = self.to_be.find("devices/disk/source")
        assert source is not None
        assert source.get("file", "").startswith(f"{mount}/")
        # libvirt does not know that the file system is shared: at the end of the migration the
        # source's would give the image back to root, under the guest that runs here now.
        assert source.find("seclabel[@model='dac'][@relabel='no']") is not None
        until(lambda: not self.one().attachments())
        assert self.one().mounted() == []


class TestHyperScale(Scene):
    def device(self, id: str = "", size: int = 16 << 20) -> HyperScaleVolume:
        """A HyperScale volume that Cinder knows; Cinder's names are the ids in braces."""
        volume = self.hyperscale.volume(size, id=id)
        self.cinder_has(volume.id, volume.connection())
        return volume

    def test_boot_attach_detach(self) -> None:
        boot, data = self.device(BOOT), self.device()
        server = self.server(boot.id)
        assert self.disks(server) == {boot.id: str(boot.device)}
        self._attach_volume(server, data.id)
        disk = self.config(server, data.id)
        assert disk.get("type") == "block"
        assert disk.find(f"source[@dev='{data.device}']") is not None
        assert disk.find("source/seclabel") is None
        assert disk.find("driver[@type='raw'][@cache='none'][@io='native']") is not None
        assert data.loop is not None
        self.detach(server, data.id)
        assert data.loop is None
        assert not data.device.exists()
        self._delete_server(server)
        until(lambda: not self.one().attachments())
        assert boot.loop is None

    def test_an_hscli_that_fails_is_rolled_back(self) -> None:
        server, bad = self.server(self.volume(BOOT)), self.device()
        bad.command(fail={"code": 1, "stderr": "no data node"})
        self.flags(timeout=3, group="moorline")
        self.attach_fails(server, bad.id)
        assert bad.id not in self.attached(server)
        bad.command()
        until(lambda: bad.id not in self.one().wanted())
        assert bad.loop is None

    def test_the_guest_is_told_of_a_larger_device_once_there_is_one(self) -> None:
        server, data = self.server(self.volume(BOOT)), self.device(size=1 << 30)
        self._attach_volume(server, data.id)
        self.extension_fails(server, data.id, gibibytes=2)
        assert self.resized == []
        data.grow(2 << 30)
        self.extend(server, data.id, gibibytes=2)
        assert self.resized[-1][1] == 2 << 30
