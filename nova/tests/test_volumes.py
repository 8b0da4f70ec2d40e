"""What operators do with volumes, driven through Nova's own API."""

from __future__ import annotations

import subprocess
from pathlib import Path

from scene import BOOT, SHARED, Scene, until


def make_qcow2(path: Path) -> None:
    path.unlink()
    command = ["qemu-img", "create", "-q", "-f", "qcow2", str(path), "16M"]
    subprocess.run(command, check=True)


class TestVolumes(Scene):
    def test_boot_from_volume_attach_and_detach(self) -> None:
        boot, data = self.volume(BOOT), self.volume()
        server = self.server(boot)
        assert len(self.one().mounted()) == 1
        self._attach_volume(server, data)
        path = Path(self.disks(server)[data])
        assert path.parent == Path(self.one().mounted()[0])
        assert path.exists()
        self.detach(server, data)
        assert set(self.one().attachments()) == {(boot, server["id"])}
        assert len(self.one().mounted()) == 1
        self._delete_server(server)
        until(lambda: not self.one().attachments())
        assert self.one().mounted() == []

    def test_the_disk_is_as_moorline_says_and_keeps_what_nova_adds(self) -> None:
        data = self.volume(format="qcow2", qos_specs={"total_iops_sec": 100}, access_mode="ro")
        make_qcow2(self.share.path / f"volume-{data}")
        server = self.server(self.volume(BOOT))
        self._attach_volume(server, data)
        disk = self.config(server, data)
        assert disk.find("driver[@type='qcow2'][@cache='none'][@io='native']") is not None
        assert disk.find("source/seclabel") is None  # libvirt knows that Quobyte is shared
        assert disk.findtext("iotune/total_iops_sec") == "100"
        assert disk.findtext("serial") == data
        assert disk.find("alias").get("name") == f"ua-{data}"  # type: ignore[union-attr]
        assert disk.find("readonly") is not None

    def test_two_instances_on_one_share_do_not_disturb_each_other(self) -> None:
        first = self.server(self.volume(BOOT))
        data = self.volume()
        second = self.server(data)
        self._delete_server(first)
        until(lambda: set(self.one().attachments()) == {(data, second["id"])})
        assert len(self.one().mounted()) == 1

    def test_multi_attach_is_let_go_one_by_one(self) -> None:
        self.volume(SHARED)
        first, second = self.server(self.volume()), self.server(self.volume())
        self._attach_volume(first, SHARED)
        self._attach_volume(second, SHARED)
        disk = self.config(second, SHARED)
        assert disk.find("shareable") is not None
        assert disk.find("driver[@cache='none']") is not None
        self.detach(first, SHARED)
        assert (SHARED, second["id"]) in self.one().attachments()
        assert (SHARED, first["id"]) not in self.one().attachments()
        self.detach(second, SHARED)
        assert SHARED not in self.one().wanted()

    def test_a_refused_volume_is_rolled_back(self) -> None:
        server = self.server(self.volume(BOOT))
        bad = self.volume()
        self.connections[bad]["data"]["name"] = "../../../etc/shadow"
        self.attach_fails(server, bad)
        until(lambda: bad not in self.attached(server))
        assert bad not in self.one().wanted()
        assert bad not in self.disks(server)

    def test_a_mount_that_fails_is_rolled_back_and_leaves_no_attachment(self) -> None:
        server = self.server(self.volume(BOOT))
        sick = self.storage.volume("sick")
        self.storage.command("sick", fail={"code": 1, "stderr": "no route"})
        bad = self.volume(share=sick)
        self.flags(timeout=2, group="moorline")
        self.attach_fails(server, bad)
        until(lambda: bad not in self.attached(server))
        until(lambda: bad not in self.one().wanted())

    def test_a_mount_that_moorline_made_is_not_warned_of(self) -> None:
        """It is in use by another instance, by somebody who reads, or by the instance itself, which
        Nova undefines only afterwards."""
        boot, data = self.volume(BOOT), self.volume()
        server, other = self.server(boot, data), self.server(self.volume())
        self.detach(server, data)
        with Path(self.disks(other)[self.attached(other)[0]]).open("rb"):
            self._delete_server(server)
            self._delete_server(other)
            assert len(self.one().mounted()) == 1
        until(lambda: self.one().mounted() == [])
        assert "is let go; the agent disconnects it when that can be done" in self.logged()
        assert self.warned() == []

    def test_a_mount_of_somebody_else_above_it_is_warned_of_as_that(self) -> None:
        server = self.server(self.volume(BOOT))
        (link,) = self.one().mounted()
        subprocess.run(["mount", "-t", "tmpfs", "theirs", link], check=True)
        self._delete_server(server)
        (warning,) = self.warned()
        assert "its link stays until a person has decided" in warning
        subprocess.run(["umount", link], check=True)
        until(lambda: self.one().mounted() == [])

    def test_stop_start_and_hard_reboot_keep_the_volume(self) -> None:
        boot = self.volume(BOOT)
        server = self.server(boot)
        self._stop_server(server)
        self._start_server(server)
        self.api.post_server_action(server["id"], {"reboot": {"type": "HARD"}})
        until(lambda: self.api.get_server(server["id"])["status"] == "ACTIVE")
        assert self.one().attachments() == {(boot, server["id"]): "connected"}
        assert len(self.one().mounted()) == 1

    def test_shelve_and_unshelve(self) -> None:
        boot = self.volume(BOOT)
        server = self.server(boot)
        self._shelve_server(server)
        until(lambda: not self.one().attachments())
        assert self.one().mounted() == []
        self._unshelve_server(server)
        assert (boot, server["id"]) in self.one().attachments()

    def test_the_agent_dies_and_comes_back(self) -> None:
        boot, data = self.volume(BOOT), self.volume()
        server = self.server(boot)
        self.one().kill()
        self.attach_fails(server, data)
        until(lambda: data not in self.attached(server))
        self.one().start()
        assert set(self.one().attachments()) == {(boot, server["id"])}
        self._attach_volume(server, data)
        self.detach(server, data)

    def test_nova_compute_restarts_between_attach_and_detach(self) -> None:
        boot, data = self.volume(BOOT), self.volume()
        server = self.server(boot)
        self._attach_volume(server, data)
        self.restart_compute_service("one")
        self.detach(server, data)
        self._delete_server(server)
        until(lambda: not self.one().attachments())
        assert self.one().mounted() == []
