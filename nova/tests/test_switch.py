"""A host goes over to the plug-in, and back to Nova's own Quobyte driver, with its instances."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from hosts import MOORLINE
from nova.tests.functional.libvirt import base
from nova.virt.libvirt import driver
from scene import BOOT, Scene, until, virsh

NOVA = "http://openstack.org/xmlns/libvirt/nova/1.1"


class Switching(Scene):
    compute_driver = "libvirt.LibvirtDriver"

    def setUp(self) -> None:
        self.novas_own()
        super().setUp()

    def novas_own(self) -> None:
        """As in a process in which the plug-in was never loaded."""
        from moorline_nova.driver import NOVAS

        driver.VOLUME_DRIVERS.clear()
        driver.VOLUME_DRIVERS.update(NOVAS)

    def switch(self, to: str) -> None:
        """The operator changes one line, and restarts nova-compute."""
        self.novas_own()
        self.flags(compute_driver=to)
        self.plug(self.one())
        self.restart_compute_service("one")

    def novas_mount(self, host: str = "one") -> str:
        """Where Nova's own driver mounts the share."""
        named = hashlib.md5(self.share.export.encode(), usedforsecurity=False).hexdigest()
        return str(self.hosts[host].mounts / named)

    def moorline(self, *words: str, code: int = 0) -> Any:
        """Run the command, as the operator does."""
        config = ("--config-file", str(self.one().config), "--output", "json")
        done = subprocess.run(
            [MOORLINE, *words, *config], env=self.one().environment, capture_output=True, text=True
        )
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout)

    def mappings(self, server: dict[str, Any], *volumes: str) -> str:
        """A file of what Nova's database has of an instance's volumes."""
        rows = [
            {
                "instance_uuid": server["id"],
                "volume_id": volume,
                "connection_info": json.dumps(self.kept(server, volume)),
            }
            for volume in volumes
        ]
        file = self.base / "mappings.json"
        file.write_text(json.dumps(rows))
        return str(file)

    def show_to_libvirt(self, server: dict[str, Any]) -> None:
        """Let the agent see the instance: Nova's libvirt is not its own here."""
        self.hide_from_libvirt(server)
        domain = ET.Element("domain", type="qemu")
        for tag, text in (("name", server["id"]), ("uuid", server["id"]), ("memory", "65536")):
            ET.SubElement(domain, tag).text = text
        ET.SubElement(ET.SubElement(domain, "metadata"), f"{{{NOVA}}}instance")
        ET.SubElement(ET.SubElement(domain, "os"), "type").text = "hvm"
        devices = ET.SubElement(domain, "devices")
        for number, (volume, path) in enumerate(self.disks(server).items()):
            disk = ET.SubElement(devices, "disk", type="file", device="disk")
            ET.SubElement(disk, "driver", name="qemu", type="raw")
            ET.SubElement(disk, "source", file=path)
            ET.SubElement(disk, "target", dev=f"vd{'abcdef'[number]}", bus="virtio")
            ET.SubElement(disk, "serial").text = volume
            ET.SubElement(disk, "alias", name=f"ua-{volume}")
        file = self.base / "domain.xml"
        file.write_text(ET.tostring(domain, encoding="unicode"))
        virsh("define", str(file))
        self.addCleanup(self.hide_from_libvirt, server)

    def hide_from_libvirt(self, server: dict[str, Any]) -> None:
        if server["id"] in virsh("list", "--all", "--uuid"):
            virsh("undefine", server["id"])


class TestOverAndBack(Switching):
    def test_the_mount_and_the_volumes_are_adopted_and_given_back(self) -> None:
        boot, data = self.volume(BOOT), self.volume()
        server = self.server(boot)
        self._attach_volume(server, data)
        self.show_to_libvirt(server)
        assert self.one().mounted() == [self.novas_mount()]

        mappings = self.mappings(server, boot, data)
        words = ("adopt", "--all", "--hands-off", "--connections", mappings)
        (line,) = self.moorline(*words, code=3)["settings"]
        assert line == f"quobyte_mount_points = {self.share.export}={self.novas_mount()}"
        assert self.one().attachments() == {}
        self.one().stop()
        self.one().configure(line)
        self.one().start()
        for outcome in ("adopted", "kept"):
            disks = self.moorline(*words)["disks"]
            assert {each["volume"]: each["outcome"] for each in disks} == {
                boot: outcome,
                data: outcome,
            }
        self.switch("moorline.LibvirtDriver")
        self.detach(server, data)
        self.show_to_libvirt(server)
        until(lambda: self.one().wanted() == {boot})
        again = self.volume()
        self._attach_volume(server, again)
        self.show_to_libvirt(server)
        assert self.one().mounted() == [self.novas_mount()]
        assert Path(self.disks(server)[again]).parent == Path(self.novas_mount())

        released = self.moorline("release", "--all")
        assert {each["volume"]: each["outcome"] for each in released} == {
            boot: "released",
            again: "released",
        }
        self.switch("libvirt.LibvirtDriver")
        with Path(self.disks(server)[boot]).open("rb"):  # as QEMU has it
            self.detach(server, again)
            assert self.one().mounted() == [self.novas_mount()]
        self._delete_server(server)
        assert self.one().mounted() == []
        assert self.one().attachments() == {}

    def test_what_was_adopted_is_unmounted_after_its_last_user(self) -> None:
        boot = self.volume(BOOT)
        server = self.server(boot)
        self.one().stop()
        self.one().configure(f"quobyte_mount_points = {self.share.export}={self.novas_mount()}")
        self.one().start()
        self.show_to_libvirt(server)
        url = f"quobyte://{self.share.export}/volume-{boot}"
        self.moorline("adopt", server["id"], url, "--format", "raw", "--hands-off")
        self.switch("moorline.LibvirtDriver")
        self._delete_server(server)
        assert self.one().attachments() == {(boot, server["id"]): "absent"}
        assert self.one().mounted() == [self.novas_mount()]  # a guest still names it
        self.hide_from_libvirt(server)
        until(lambda: not self.one().attachments())
        assert self.one().mounted() == []
        assert not Path(self.novas_mount()).exists()

    def test_without_adopting_an_instance_comes_over_when_it_is_started_anew(self) -> None:
        boot, data = self.volume(BOOT), self.volume()
        server = self.server(boot)
        self._attach_volume(server, data)
        self.switch("moorline.LibvirtDriver")
        self.detach(server, data)
        assert self.one().mounted() == [self.novas_mount()]
        assert self.disks(server)[boot].startswith(self.novas_mount())
        self._reboot_server(server, hard=True)
        (mount,) = set(self.one().mounted()) - {self.novas_mount()}
        assert self.disks(server)[boot].startswith(mount)
        subprocess.run(["umount", self.novas_mount()], check=True)  # nobody has it open

        # And back: told that it is not needed, the agent waits for the last guest that names it.
        self.show_to_libvirt(server)
        self.moorline("detach", server["id"], boot)
        assert self.one().mounted() == [mount]
        self.switch("libvirt.LibvirtDriver")
        self._reboot_server(server, hard=True)
        assert self.disks(server)[boot].startswith(self.novas_mount())
        self.show_to_libvirt(server)
        until(lambda: not self.one().attachments())
        assert self.one().mounted() == [self.novas_mount()]


class TestToAHostWithout(base.LibvirtMigrationMixin, Switching):
    compute_driver = "moorline.LibvirtDriver"

    def _migrate_stub(self, domain: Any, destination: str, params: Any, flags: int) -> None:
        self.to_be = ET.fromstring(params["destination_xml"])
        super()._migrate_stub(domain, destination, params, flags)

    def test_live_migration(self) -> None:
        self.server = Scene.server(self, self.volume(BOOT))
        self.src = self.computes["one"]
        self.compute_driver = "libvirt.LibvirtDriver"
        self.flags(compute_driver=self.compute_driver)
        self.compute_host("two")
        self.novas_own()  # of this process's two nova-computes only the first has the plug-in
        self.dest = self.computes["two"]
        self._live_migrate(self.server, host="two")
        source = self.to_be.find("devices/disk/source")
        assert source is not None
        assert source.get("file", "").startswith(self.novas_mount("two"))
        assert self.hosts["two"].mounted() == [self.novas_mount("two")]
        until(lambda: not self.one().attachments())
        assert self.one().mounted() == []
